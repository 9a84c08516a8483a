package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func newConfig(a *app) *cobra.Command {
	return group("config", "Check and print the configuration, list its keys", newConfigCheck(a), newConfigPrint(a), newConfigKeys(a))
}

func newConfigCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "Check the configuration without starting anything",
		Long: "Check the configuration (file and environment) without starting anything.\n\n" +
			"Exit code 0: a node would start with it. 2: it would not; every problem is named with its place.",
		Example: "  pontoon config check /etc/pontoon/config.yml",
		Args:    a.fileArgument,
		RunE: func(*cobra.Command, []string) error {
			c, err := loadConfig(a.config, a.host)
			if a.json() {
				return a.checkJSON(c, err)
			}
			if err != nil {
				return err
			}
			for _, n := range c.Notices {
				if _, err := fmt.Fprintf(a.err, "notice: %s\n", n); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(a.out, "%s: fine\n", orText(c.File, "no file, defaults and environment"))
			return err
		},
	}
}

func (a *app) checkJSON(c *loaded, err error) error {
	answer := struct {
		OK       bool      `json:"ok"`
		Problems []problem `json:"problems"`
		Notices  []string  `json:"notices"`
	}{OK: err == nil, Problems: []problem{}, Notices: []string{}}
	var bad *configError
	switch {
	case errors.As(err, &bad):
		answer.Problems = bad.problems
	case err != nil:
		return err
	default:
		answer.Notices = append(answer.Notices, c.Notices...)
	}
	if err := a.showJSON(answer); err != nil || answer.OK {
		return err
	}
	return &codedError{code: exitUsage}
}

func newConfigPrint(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "print [FILE]", Short: "Print the configuration in effect, and where each value comes from",
		Long: "Print the configuration in effect as a file that means the same, with where each value comes from.\n" +
			"Secrets are redacted.",
		Example: "  pontoon config print\n  REGISTRY_HTTP_ADDR=:5000 pontoon config print -o json",
		Args:    a.fileArgument,
		RunE: func(*cobra.Command, []string) error {
			c, err := loadConfig(a.config, a.host)
			if err != nil {
				return err
			}
			if a.json() {
				return a.showJSON(c.settings())
			}
			body, err := c.yaml()
			if err != nil {
				return err
			}
			_, err = a.out.Write(body)
			return err
		},
	}
}

// documented is a line of the table of keys, for people.
type documented struct {
	Key     string `json:"key"`
	Class   string `json:"class"`
	Default string `json:"default"`
	Doc     string `json:"doc"`
}

func newConfigKeys(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "keys", Short: "List every key with its default and what it does",
		Long: "List every key with its default and what it does, and distribution's keys that are accepted without\n" +
			"effect (needless) or refused. The variable of http.addr is REGISTRY_HTTP_ADDR, and so on.",
		Example: "  pontoon config keys | grep cluster",
		Args:    exactly(0),
		RunE: func(*cobra.Command, []string) error {
			var all []documented
			for _, k := range keysOf(&Config{}, a.host) {
				all = append(all, documented{k.path, [...]string{"honoured", "needless", "refused"}[k.class], k.def, k.doc})
			}
			if a.json() {
				return a.showJSON(all)
			}
			rows := make([][]string, len(all))
			for i, d := range all {
				rows[i] = []string{d.Key, dash(d.Default), strings.TrimPrefix(d.Class+": "+d.Doc, "honoured: ")}
			}
			_, err := io.WriteString(a.out, textOf(func(w io.Writer) { columns(w, "KEY\tDEFAULT\tWHAT IT DOES", rows) }))
			return err
		},
	}
}

// fileArgument takes the file as an argument too, as distribution's serve does.
func (a *app) fileArgument(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 1 || (len(args) == 1 && a.config != ""):
		return usage(cmd, "got more than one file, expected at most one")
	case len(args) == 1:
		a.config = args[0]
	}
	return nil
}

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// app is what every verb is given.
type app struct {
	stdio
	host host
	// Flags of every verb.
	config, socket, output string
}

// newRoot builds the tree of verbs.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "pontoon",
		Short: "A container registry of one or many equal nodes",
		Long: "Pontoon is an OCI registry. One node is `pontoon serve`; three nodes that share\n" +
			"a secret and an S3 bucket are one registry, and any of them takes any request.\n\n" +
			"Exit codes: 0 done; 1 failed; 2 wrong use or configuration; 3 not found; 4 in conflict (held, changed, in\n" +
			"use, no member any more); 5 unavailable (no node answers, not ready, no quorum); 70 the disk under a node hangs.",
		Example: "  pontoon serve                     # a registry on 127.0.0.1:5000\n" +
			"  pontoon demo                      # three nodes on this machine, one of them killed\n" +
			"  pontoon status                    # how the node here and its cluster are\n" +
			"  pontoon config check --config pontoon.yml",
		SilenceUsage:               true,
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		DisableAutoGenTag:          true,
		Args:                       cobra.ArbitraryArgs,
		RunE:                       unknownVerb,
		PersistentPreRunE:          func(*cobra.Command, []string) error { return a.checkFlags() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "%s", err) })
	flags := root.PersistentFlags()
	flags.StringVarP(&a.config, "config", "c", "", "configuration file (default $"+pathVariable+", else "+systemConfig+" if it is there)")
	flags.StringVar(&a.socket, "socket", "", "operators' socket of the node (default: pontoon.sock in cluster.datadir of the configuration)")
	flags.StringVarP(&a.output, "output", "o", "text", "text or json")
	root.AddCommand(
		newServe(a), newDemo(a), newConfig(a), newStatus(a), newCluster(a),
		newRepo(a), newTag(a), newManifest(a), newLock(a), newGC(a), newSnapshot(a), newVersion(a),
	)
	root.CompletionOptions.HiddenDefaultCmd = false
	return root
}

func (a *app) checkFlags() error {
	if a.output != "text" && a.output != "json" {
		return &usageError{fmt.Sprintf("--output: got %q, expected text or json", a.output)}
	}
	return nil
}

func (a *app) json() bool { return a.output == "json" }

// group is a verb that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: cobra.ArbitraryArgs,
		RunE: unknownVerb,
	}
	cmd.AddCommand(children...)
	return cmd
}

// unknownVerb answers for a verb that only holds others: none of them was named.
func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage(cmd, "a verb is missing")
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usage(cmd, "unknown verb %q (did you mean %s?)", args[0], strings.Join(near, " or "))
	}
	return usage(cmd, "unknown verb %q", args[0])
}

// exactly asks for so many arguments, and says their names when they are not there.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(cmd, "got %d arguments, expected %d", len(args), n)
		}
		return nil
	}
}

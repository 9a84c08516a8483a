package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// exhibit is one patch. Its file begins with a header, as a letter does:
//
//	Breaks: what the patch takes away
//	Rule:   which rule that is
//	Run:    the command that must fail, without a shell
//	Fails:  by which text, a regular expression
//	Within: how long the command may take
//
// After an empty line there may be words on why the defect looks as it does here, and then comes the diff.
type exhibit struct {
	name, breaks, rule, run string
	fails                   *regexp.Regexp
	within                  time.Duration
	patch                   []byte
}

// folder is where the exhibits are, in the tree.
const folder = "chaos/exhibits"

// load reads all exhibits of a tree, in the order of their names.
func load(root string) ([]*exhibit, error) {
	paths, err := filepath.Glob(filepath.Join(root, folder, "*.patch"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("there are no exhibits in %s: run it where the tree is", filepath.Join(root, folder))
	}
	all := make([]*exhibit, len(paths))
	for i, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if all[i], err = parse(strings.TrimSuffix(filepath.Base(path), ".patch"), body); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return all, nil
}

// parse reads one exhibit.
func parse(name string, body []byte) (*exhibit, error) {
	header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(body))).ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	for _, field := range []string{"Breaks", "Rule", "Run", "Fails", "Within"} {
		if len(header[field]) != 1 || header.Get(field) == "" {
			return nil, fmt.Errorf("the header must have one %s", field)
		}
	}
	if len(header) != 5 {
		return nil, fmt.Errorf("the header has fields that mean nothing: %v", header)
	}
	e := &exhibit{name: name, breaks: header.Get("Breaks"), rule: header.Get("Rule"), run: header.Get("Run"), patch: body}
	if e.fails, err = regexp.Compile(header.Get("Fails")); err != nil {
		return nil, fmt.Errorf("header Fails: %w", err)
	}
	if e.within, err = time.ParseDuration(header.Get("Within")); err != nil {
		return nil, fmt.Errorf("header Within: %w", err)
	}
	if !bytes.Contains(body, []byte("\ndiff --git ")) {
		return nil, fmt.Errorf("there is no diff in it")
	}
	return e, nil
}

// outcome is what a command did.
type outcome struct {
	output string
	// err is nil when it passed.
	err error
	// late: it was ended at the end of its time.
	late bool
}

// unbroken says what is wrong with what the command did without the patch; "" when it passed.
func (e *exhibit) unbroken(o outcome) string {
	switch {
	case o.err != nil:
		return fmt.Sprintf("the suite fails without it: %v", o.err)
	case strings.Contains(o.output, "[no tests to run]"):
		return "the suite has no such test"
	}
	return ""
}

// judge says why what the command did with the patch is no catch; "" when it is one.
func (e *exhibit) judge(o outcome) string {
	switch {
	case o.late:
		return fmt.Sprintf("the command did not end within %v", e.within)
	case o.err == nil:
		return "the command passes"
	case strings.Contains(o.output, "[build failed]") || strings.Contains(o.output, "[setup failed]"):
		return "the tests do not build"
	case !e.fails.MatchString(o.output):
		return fmt.Sprintf("it fails (%v), but by other words than %q", o.err, e.fails)
	}
	return ""
}

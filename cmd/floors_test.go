// Package cmd holds one thing of its own: the test that keeps the floors of the house apart (who may import whom, what
// is pure, what is small, what is documented). It promises that a violation anywhere in the tree fails this package's
// tests, cached results included, because every file is read by the test itself. It does not see what a third-party
// package imports, and it does not judge names or comments; that is for reviewers and the linter.
package cmd_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/pontoon-registry/pontoon"

// maxLines bounds a hand-written source file that is not a test.
const maxLines = 500

// maxDepth bounds the folders below the root that hold hand-written Go: cluster/transport is two.
const maxDepth = 2

// floors is the table of the design: package → what of ours it may import. A trailing /* stands for the packages one
// folder below, which share one line; a package that no line names is a violation, so a new one has to be placed.
var floors = map[string][]string{
	"proto/*":           {"proto/*"},
	"meta/kv":           {},
	"meta/policy":       {},
	"blobs":             {},
	"meta":              {"meta/kv", "meta/policy", "proto/*"},
	"blobs/*":           {"blobs"},
	"cluster/transport": {"proto/*"},
	"cluster":           {"cluster/transport", "meta", "meta/kv", "proto/*"},
	"cluster/gc":        {"meta", "meta/kv", "blobs", "proto/*"},
	"cluster/backup":    {"meta", "meta/kv", "blobs", "proto/*"},
	"api/oci":           {"meta", "meta/policy", "blobs", "proto/*"},
	"api/auth":          {"meta", "meta/policy", "blobs", "proto/*"},
	"api/admin":         {"meta", "meta/policy", "blobs", "proto/*"},
	"api":               {"api/*", "meta", "blobs", "proto/*"},
	"cmd/*":             {"api", "api/*", "cluster", "cluster/*", "meta", "meta/*", "blobs", "blobs/*", "proto/*"},
	"cmd":               {},
	"chaos":             {"chaos/*"},
	"chaos/*":           {},
}

// testFloors is what the tests of a package may import besides: real parts from the floors below (meta.Solo, blobs/mem)
// and the suite that all stores share. Neighbours stay apart in tests too.
var testFloors = map[string][]string{
	"meta":              {"blobs", "blobs/mem"},
	"blobs/*":           {"blobs/blobstest", "blobs/mem"},
	"cluster/transport": {"meta", "meta/kv"},
	"cluster":           {"blobs", "blobs/*", "meta/policy"},
	"cluster/gc":        {"blobs/*"},
	"cluster/backup":    {"blobs/*"},
	"api/oci":           {"blobs/*", "meta/kv"},
	"api/auth":          {"blobs/*", "meta/kv"},
	"api/admin":         {"blobs/*", "meta/kv"},
	"api":               {"blobs/*", "meta/kv", "meta/policy"},
}

// pure lists the packages whose results must be equal on every node. Paths are banned, not identifiers: an import under
// another name is still the same path. A path bans what lies below it too, except what pureExcept names.
var (
	pure       = []string{"meta", "meta/policy"}
	impure     = []string{"time", "os", "net", "math/rand", "crypto/rand", "log", "syscall", "golang.org/x/sys"}
	pureExcept = []string{"net/netip"}
)

// topLevel is every name that may stand at the root; names with a leading dot may stand beside them.
var topLevel = []string{
	"cmd", "cluster", "proto", "meta", "blobs", "api", "deploy", "chaos",
	"go.mod", "go.sum", "buf.yaml", "Makefile", "README.md",
	"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
	"bin", "dist", "tmp", // ignored by git: built tools and binaries
}

func TestTheTreeKeepsItsFloors(t *testing.T) {
	violations, err := check(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

// check reads every Go file of the tree and returns what breaks a rule, sorted by path.
func check(tree fs.FS) ([]string, error) {
	c := &checker{docs: map[string]bool{}}
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		top, _, nested := strings.Cut(name, "/")
		switch {
		case name == ".":
			return nil
		case strings.HasPrefix(top, ".") || slices.Contains([]string{"bin", "dist", "tmp"}, top):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !nested && !slices.Contains(topLevel, name):
			c.add(name, "is not a top-level name of the design")
		case entry.IsDir() && entry.Name() == "testdata":
			return fs.SkipDir
		case !entry.IsDir() && strings.HasSuffix(name, ".go"):
			return c.file(tree, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("walk tree: %w", err)
	}
	for _, dir := range slices.Sorted(maps.Keys(c.docs)) {
		if !c.docs[dir] {
			c.add(dir, "has no package doc: say what it is, what it promises and what it does not")
		}
	}
	slices.Sort(c.violations)
	return c.violations, nil
}

type checker struct {
	violations []string
	docs       map[string]bool // folder of hand-written code → has a package doc
}

func (c *checker) add(where, format string, args ...any) {
	c.violations = append(c.violations, where+": "+fmt.Sprintf(format, args...))
}

func (c *checker) file(tree fs.FS, name string) error {
	source, err := fs.ReadFile(tree, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("parse: %w", err)
	}
	dir, test, generated := path.Dir(name), strings.HasSuffix(name, "_test.go"), ast.IsGenerated(file)

	c.imports(name, dir, file, test)
	if generated {
		return nil
	}
	if depth := strings.Count(dir, "/") + 1; depth > maxDepth {
		c.add(name, "lies %d folders below the root; at most %d", depth, maxDepth)
	}
	if lines := strings.Count(string(source), "\n"); !test && lines > maxLines {
		c.add(name, "has %d lines; at most %d: which two things is it?", lines, maxLines)
	}
	c.docs[dir] = c.docs[dir] || (file.Doc != nil && len(strings.Fields(file.Doc.Text())) >= 5)
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			c.add(set.Position(f.Pos()).String(), "init() hides work at start; do it where main can see it")
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if slices.Contains(pure, dir) && !test {
				c.add(set.Position(n.Pos()).String(), "go statement in a package that must be deterministic")
			}
		case *ast.SelectorExpr:
			if test && skips(n) {
				c.add(set.Position(n.Pos()).String(), "a skipped test tests nothing: install what it needs, or fail")
			}
		}
		return true
	})
	return nil
}

// skips tells whether the selector is a call into testing that leaves a test out.
func skips(n *ast.SelectorExpr) bool {
	x, ok := n.X.(*ast.Ident)
	if !ok {
		return false
	}
	switch n.Sel.Name {
	case "SkipNow":
		return true
	case "Skip", "Skipf":
		return slices.Contains([]string{"t", "b", "f", "tb"}, x.Name)
	case "Short":
		return x.Name == "testing"
	}
	return false
}

func (c *checker) imports(name, dir string, file *ast.File, test bool) {
	allowed, known := floor(floors, dir)
	if !known {
		c.add(name, "package %s has no line in the table of floors", dir)
	}
	if test {
		more, _ := floor(testFloors, dir)
		allowed = append(slices.Clone(allowed), more...)
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			c.add(name, "import %s: %v", spec.Path.Value, err)
			continue
		}
		if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
			if ours != dir && !matches(allowed, ours) {
				c.add(name, "%s may not import %s", dir, ours)
			}
			continue
		}
		if slices.Contains(pure, dir) && !test && banned(imported) {
			c.add(name, "%s is deterministic and may not import %s", dir, imported)
		}
	}
}

// floor finds the line of a package: its own, else the one of its folder with a star.
func floor(table map[string][]string, dir string) ([]string, bool) {
	if allowed, ok := table[dir]; ok {
		return allowed, true
	}
	for line, allowed := range table {
		if strings.HasSuffix(line, "/*") && matches([]string{line}, dir) {
			return allowed, true
		}
	}
	return nil, false
}

func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, star := strings.CutSuffix(p, "/*")
		if !star {
			return p == pkg
		}
		rest, below := strings.CutPrefix(pkg, prefix+"/")
		// Only generated code lies deeper than one folder below its floor.
		return below && (prefix == "proto" || !strings.Contains(rest, "/"))
	})
}

func banned(imported string) bool {
	if slices.Contains(pureExcept, imported) {
		return false
	}
	return slices.ContainsFunc(impure, func(p string) bool {
		return imported == p || strings.HasPrefix(imported, p+"/")
	})
}

// TestThePlantedViolationIsFound plants one violation at a time in a small tree that is otherwise clean. A checker that
// cannot fail would keep nothing.
func TestThePlantedViolationIsFound(t *testing.T) {
	clean := map[string]string{
		"go.mod":                    "module " + module + "\n",
		"meta/doc.go":               "// Package meta is what is true, by rules.\npackage meta\n",
		"meta/policy/access.go":     "// Package policy judges and keeps no state.\npackage policy\n\nimport \"net/netip\"\n\nvar _ netip.Addr\n",
		"blobs/blobs.go":            "// Package blobs is what is stored, in keys.\npackage blobs\n",
		"blobs/s3/s3.go":            "// Package s3 keeps blobs in a bucket.\npackage s3\n\nimport _ \"" + module + "/blobs\"\n",
		"api/oci/oci.go":            "// Package oci answers what the specification asks.\npackage oci\n\nimport _ \"" + module + "/meta\"\n",
		"proto/pontoon/a/v1/a.go":   "// Code generated by hand. DO NOT EDIT.\n\npackage av1\n\nfunc init() {}\n",
		"cmd/pontoon/main.go":       "// Package main introduces all to each other.\npackage main\n\nimport _ \"" + module + "/api/oci\"\n",
		"meta/meta_test.go":         "package meta\n\nimport \"time\"\n\nvar _ = time.Now\n",
		".ci/run":                   "",
		"meta/testdata/deep/x/a.go": "package broken {",
	}
	plants := []struct{ name, file, source, want string }{
		{"clean", "", "", ""},
		{"neighbour", "api/oci/a.go", "package oci\n\nimport _ \"" + module + "/api/auth\"\n", "api/oci may not import api/auth"},
		{"upwards", "meta/a.go", "package meta\n\nimport _ \"" + module + "/api\"\n", "meta may not import api"},
		{"across", "blobs/a.go", "package blobs\n\nimport _ \"" + module + "/meta\"\n", "blobs may not import meta"},
		{"store to store", "blobs/s3/a.go", "package s3\n\nimport _ \"" + module + "/blobs/fs\"\n", "blobs/s3 may not import blobs/fs"},
		{"test across", "api/oci/a_test.go", "package oci\n\nimport _ \"" + module + "/cluster\"\n", "api/oci may not import cluster"},
		{"chaos", "chaos/a.go", "// Package chaos breaks what it can reach.\npackage chaos\n\nimport _ \"" + module + "/meta\"\n", "chaos may not import meta"},
		{"clock", "meta/a.go", "package meta\n\nimport clock \"time\"\n\nvar _ = clock.Now\n", "may not import time"},
		{"clock in policy", "meta/policy/a.go", "package policy\n\nimport \"time\"\n\nvar _ = time.Now\n", "may not import time"},
		{"network", "meta/a.go", "package meta\n\nimport _ \"net/http\"\n", "may not import net/http"},
		{"logging", "meta/a.go", "package meta\n\nimport _ \"log/slog\"\n", "may not import log/slog"},
		{"chance", "meta/a.go", "package meta\n\nimport _ \"math/rand/v2\"\n", "may not import math/rand/v2"},
		{"goroutine", "meta/a.go", "package meta\n\nfunc f() { go f() }\n", "go statement"},
		{"init", "api/oci/a.go", "package oci\n\nfunc init() {}\n", "init()"},
		{"no doc", "api/a.go", "package api\n", "api: has no package doc"},
		{"too deep", "blobs/s3/parts/a.go", "// Package parts is one folder too deep.\npackage parts\n", "folders below the root"},
		{"unknown package", "blobs.d/x/a.go", "// Package x stands where nothing should stand.\npackage x\n", "no line in the table"},
		{"unknown name", "util/a.txt", "", "util: is not a top-level name"},
		{"too long", "meta/a.go", "package meta\n" + strings.Repeat("\n", maxLines), "lines; at most"},
		{"skip", "meta/a_test.go", "package meta\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { t.Skip() }\n", "skipped test"},
	}
	for _, plant := range plants {
		t.Run(plant.name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for name, source := range clean {
				tree[name] = &fstest.MapFile{Data: []byte(source)}
			}
			if plant.file != "" {
				tree[plant.file] = &fstest.MapFile{Data: []byte(plant.source)}
			}
			violations, err := check(tree)
			if err != nil {
				t.Fatal(err)
			}
			if plant.want == "" {
				if len(violations) > 0 {
					t.Fatalf("a clean tree is refused: %q", violations)
				}
				return
			}
			if !slices.ContainsFunc(violations, func(v string) bool { return strings.Contains(v, plant.want) }) {
				t.Fatalf("planted %s: want a violation with %q, got %q", plant.file, plant.want, violations)
			}
		})
	}
}

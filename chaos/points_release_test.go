package chaos

import (
	"bytes"
	"debug/buildinfo"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAReleaseHasNoFaults: the binary under test knows nothing of what breaks a node on command. Go keeps the name of every
// function in a binary, stripped or not; the same look at one with the tag finds them, so it would see them.
func TestAReleaseHasNoFaults(t *testing.T) {
	names := faultNames(t)
	released, broken := inBinary(t, pontoon(t), names), inBinary(t, breakable(t), names)
	if len(released) > 0 {
		t.Errorf("the release has %d of %d names of fault code: %v", len(released), len(names), released)
	}
	if len(broken) < len(names)*3/4 { // some are small enough to have been inlined everywhere
		t.Errorf("the binary with the tag shows only %d of %d names: the look sees nothing", len(broken), len(names))
	}
	if tags := tagsOf(t, pontoon(t)); tags != "" {
		t.Errorf("the release was built with the tags %q", tags)
	}
	if tags := tagsOf(t, breakable(t)); tags != "faults" {
		t.Errorf("the other was built with the tags %q", tags)
	}
}

// faultNames are what names fault code in a binary: its functions, and the variables of its environment.
func faultNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../cmd/pontoon/faults*.go")
	if err != nil || len(files) < 3 {
		t.Fatalf("files of fault code: %v, %v", files, err)
	}
	names, plain := []string{"PONTOON_FAULTS", "PONTOON_FAULTS_SET"}, map[string]bool{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(source), "\n")
		tagged, err := constraint.Parse(first)
		if err != nil {
			t.Fatalf("%s: its first line is no build constraint: %v", file, err)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, source, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			switch {
			case !ok:
			case tagged.Eval(func(string) bool { return false }): // in a release
				plain[symbol(f)] = true
			default:
				names = append(names, symbol(f))
			}
		}
	}
	kept := names[:0]
	for _, name := range names {
		if !plain[name] {
			kept = append(kept, name)
		}
	}
	return kept
}

// symbol is what the linker calls a function of package main.
func symbol(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return "main." + f.Name.Name
	}
	switch of := f.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		if name, ok := of.X.(*ast.Ident); ok {
			return "main.(*" + name.Name + ")." + f.Name.Name
		}
	case *ast.Ident:
		return "main." + of.Name + "." + f.Name.Name
	}
	return "main." + f.Name.Name
}

// inBinary are the names that a binary holds.
func inBinary(t *testing.T, binary string, names []string) (found []string) {
	t.Helper()
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		for rest := content; ; { // a name may be the beginning of another
			at := bytes.Index(rest, []byte(name))
			if at < 0 {
				break
			}
			rest = rest[at+len(name):]
			if len(rest) == 0 || !wordy(rest[0]) {
				found = append(found, name)
				break
			}
		}
	}
	return found
}

func wordy(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func tagsOf(t *testing.T, binary string) string {
	t.Helper()
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			return s.Value
		}
	}
	return ""
}

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// touched finds the files that a patch changes.
var touched = regexp.MustCompile(`(?m)^--- a/(\S+)`)

// TestEveryExhibitStillApplies to the tree as it is, all of it. What a patch names is read by the test itself, so that a
// cached result is never believed of another tree.
func TestEveryExhibitStillApplies(t *testing.T) {
	const root = "../.."
	all, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		t.Run(e.name, func(t *testing.T) {
			copied := &tree{dir: t.TempDir()}
			var names []string
			for _, m := range touched.FindAllSubmatch(e.patch, -1) {
				names = append(names, string(m[1]))
			}
			if len(names) == 0 {
				t.Fatal("it changes no file that is there")
			}
			if err := copied.take(root, names); err != nil {
				t.Fatal(err)
			}
			if err := copied.apply(t.Context(), e.patch); err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				before, berr := os.ReadFile(filepath.Join(root, name))
				after, aerr := os.ReadFile(filepath.Join(copied.dir, name))
				if berr != nil || aerr != nil || bytes.Equal(before, after) {
					t.Errorf("%s is as it was: %v", name, errors.Join(berr, aerr))
				}
			}
			if e.within > 10*time.Minute || !strings.HasPrefix(e.run, "go test ") {
				t.Errorf("%q within %v: an exhibit is caught by a test, in minutes", e.run, e.within)
			}
			if !bytes.Contains(readme, []byte("`"+e.name+"`")) {
				t.Error("README.md does not name it")
			}
		})
	}
}

// TestAHeaderIsReadOrRefusedByName.
func TestAHeaderIsReadOrRefusedByName(t *testing.T) {
	good := "Breaks: all\n  of it\nRule: C1\nRun: go test ./x\nFails: lost .* entries\nWithin: 2m\n\nWhy.\n\ndiff --git a/x b/x\n"
	e, err := parse("x", []byte(good))
	if err != nil || e.breaks != "all of it" || e.run != "go test ./x" || e.within != 2*time.Minute || !e.fails.MatchString("lost 3 entries") {
		t.Errorf("got %+v, %v", e, err)
	}
	for want, body := range map[string]string{
		"one Rule":        strings.Replace(good, "Rule: C1\n", "", 1),
		"one Run":         strings.Replace(good, "go test ./x", "", 1),
		"mean nothing":    "Because: I say so\n" + good,
		"header Fails":    strings.Replace(good, ".*", "(", 1),
		"header Within":   strings.Replace(good, "2m", "soon", 1),
		"no diff":         strings.Replace(good, "diff --git", "diff", 1),
		"one Breaks":      "Breaks: twice\n" + good,
		"read the header": "nothing of the kind",
	} {
		if _, err := parse("x", []byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// scenery is a tree with a suite that sees one of the defects that it can have.
func scenery(t *testing.T, patches map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"go.mod":      "module x\n\ngo 1.26\n",
		"one.go":      "package x\n\nfunc one() int { return 1 }\n\nfunc two() int { return 2 }\n",
		"one_test.go": "package x\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) {\n\tif n := one(); n != 1 {\n\t\tt.Errorf(\"one is %d\", n)\n\t}\n}\n",
		".gitignore":  "ignored\n",
		"ignored":     "",
	}
	for name, body := range patches {
		files[filepath.Join(folder, name+".patch")] = body
	}
	for name, body := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "git", "-C", root, "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return root
}

// change is an exhibit that puts one line of the scenery in the place of another.
func change(from, to, run string) string {
	at, before, after := "@@ -1,4 +1,4 @@\n", " package x\n \n", " \n"
	if strings.Contains(from, "two") {
		at, before, after = "@@ -3,3 +3,3 @@\n", " func one() int { return 1 }\n \n", ""
	}
	return "Breaks: something\nRule: X1\nRun: " + run + "\nFails: one is [0-9]+\nWithin: 10m\n\n" +
		"diff --git a/one.go b/one.go\n--- a/one.go\n+++ b/one.go\n" + at + before + "-" + from + "\n+" + to + "\n" + after
}

// TestOnlyADefectThatIsSeenByItsWordsIsCaught.
func TestOnlyADefectThatIsSeenByItsWordsIsCaught(t *testing.T) {
	const one, two, run = "func one() int { return 1 }", "func two() int { return 2 }", "go test . -count=1"
	for name, c := range map[string]struct{ patch, want string }{
		"seen":          {change(one, "func one() int { return 3 }", run), "caught\n1 of 1 caught"},
		"not seen":      {change(two, "func two() int { return 3 }", run), "NOT CAUGHT: the command passes"},
		"other words":   {change(one, `func one() int { panic("one is what?") }`, run), "NOT CAUGHT: it fails"},
		"no go":         {change(one, "func one() int { return x }", run), "NOT CAUGHT: the tests do not build"},
		"no test":       {change(one, "func one() int64 { return 1 } // and: one is 1", run+" -run ^TestNone$"), "NOT CAUGHT: the suite has no such test"},
		"broken before": {change(one, "func one() int { return 3 }", run+" -bogus"), "NOT CAUGHT: the suite fails without it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := scenery(t, map[string]string{"x": c.patch})
			var out bytes.Buffer
			err := runAll(t.Context(), root, &out)
			if !strings.Contains(out.String(), c.want) || (err == nil) != (name == "seen") {
				t.Errorf("got %v and\n%s\nwant %q", err, out.String(), c.want)
			}
			if body, err := os.ReadFile(filepath.Join(root, "one.go")); err != nil || !strings.Contains(string(body), one) {
				t.Errorf("the tree itself was changed: %v\n%s", err, body)
			}
		})
	}
	t.Run("does not apply", func(t *testing.T) {
		root := scenery(t, map[string]string{"x": change("func three() int { return 3 }", "", run)})
		if err := runAll(t.Context(), root, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "does not apply any more") {
			t.Errorf("got %v", err)
		}
	})
}

// TestACommandEndsWithAllThatItStarted when its time is over, and that is no catch.
func TestACommandEndsWithAllThatItStarted(t *testing.T) {
	here := &tree{dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(here.dir, "run"), []byte("#!/bin/sh\necho one is 3\nsleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, took := here.command(t.Context(), time.Second, filepath.Join(here.dir, "run"))
	if !got.late || took > 30*time.Second {
		t.Errorf("got %+v after %v", got, took)
	}
	e := &exhibit{fails: regexp.MustCompile("one is"), within: time.Second}
	if wrong := e.judge(got); wrong != "the command did not end within 1s" {
		t.Errorf("judged %q", wrong)
	}
}

func runAll(ctx context.Context, root string, out *bytes.Buffer) error {
	return run(ctx, root, "", out)
}

package chaos

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// everySwitch turns on all that the suite can ask for: what is optional in 1.1, and what the main branch has added. The
// run is judged by its results, and these must repeat every switch as true.
var everySwitch = []string{
	"OCI_API_PING", "OCI_API_PULL", "OCI_API_PUSH",
	"OCI_API_BLOBS_ATOMIC", "OCI_API_BLOBS_DELETE", "OCI_API_BLOBS_DIGEST_HEADER", "OCI_API_BLOBS_MOUNT_ANONYMOUS",
	"OCI_API_BLOBS_UPLOAD_CANCEL",
	"OCI_API_MANIFESTS_ATOMIC", "OCI_API_MANIFESTS_DELETE", "OCI_API_MANIFESTS_DIGEST_HEADER", "OCI_API_MANIFESTS_TAG_PARAM",
	"OCI_API_TAGS_ATOMIC", "OCI_API_TAGS_DELETE", "OCI_API_TAGS_LIST", "OCI_API_REFERRER",
	"OCI_DATA_IMAGE", "OCI_DATA_INDEX", "OCI_DATA_INDEX_LIST", "OCI_DATA_SPARSE", "OCI_DATA_ARTIFACT", "OCI_DATA_SUBJECT",
	"OCI_DATA_SUBJECT_MISSING", "OCI_DATA_ARTIFACT_LIST", "OCI_DATA_SUBJECT_LIST", "OCI_DATA_DATA_FIELD",
	"OCI_DATA_NONDISTRIBUTABLE", "OCI_DATA_CUSTOM_FIELDS", "OCI_DATA_NO_LAYERS", "OCI_DATA_EMPTY_BLOB", "OCI_DATA_SHA512",
}

// sparse allows manifests and indexes that name what was never pushed.
const sparse = `validation:
  manifests:
    indexes:
      platforms: none
    sparse:
      images: true
      indexes: true
`

// TestConformance runs the official suite against three nodes behind HAProxy, on S3 and on a directory. Every second run
// goes through a proxy that opens a connection for each request, so that the balancer deals every request to the next
// node. With -restarting the nodes are restarted all the while, one after the other, as an upgrade does; the suite repeats
// nothing. It runs only when -conformance names the built suite.
func TestConformance(t *testing.T) {
	if *conformance == "" {
		t.Log("NOT RUN: make conformance names the built suite")
		return
	}
	for _, name := range []string{"s3", "directory"} {
		t.Run(name, func(t *testing.T) {
			var over store = newDirectory(t)
			if name == "s3" {
				over = newBucket(t)
			}
			d := newDeployment(t, over, options{extra: sparse, drain: "2s"})
			dealt := dealer(t, d.url())
			restarts := 0
			working, stop := context.WithCancel(t.Context())
			defer stop()
			var restarter sync.WaitGroup
			if *restarting {
				restarter.Go(func() { restarts = d.restartInTurn(working) })
			}
			var sum counts
			for i := range *times {
				addr, how := d.balancer, "connections kept"
				if i%2 == 1 {
					addr, how = dealt, "a connection per request"
				}
				began := time.Now()
				c, err := runSuite(t, *conformance, addr)
				if err != nil {
					t.Errorf("run %d (%s): %v", i+1, how, err)
				}
				t.Logf("run %2d on %s, %s, %v: %v", i+1, name, how, time.Since(began).Round(time.Millisecond), c)
				sum.add(c)
			}
			stop()
			restarter.Wait()
			t.Logf("%d runs on %s: %v; %d restarts meanwhile", *times, name, sum, restarts)
			if *restarting && restarts < *times {
				t.Errorf("nodes were restarted only %d times in %d runs: the test shows little", restarts, *times)
			}
			d.agree()
		})
	}
}

// dealer is a proxy that opens a connection for each request. It returns its address.
func dealer(t testing.TB, target string) string {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	})
	t.Cleanup(proxy.Close)
	return strings.TrimPrefix(proxy.URL, "http://")
}

// counts are the numbers of one or more runs, as the suite's JUnit file gives them.
type counts struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Errors   int `xml:"errors,attr"`
	Skipped  int `xml:"skipped,attr"`
	Disabled int `xml:"disabled,attr"`
}

func (c *counts) add(o counts) {
	c.Tests += o.Tests
	c.Failures += o.Failures
	c.Errors += o.Errors
	c.Skipped += o.Skipped
	c.Disabled += o.Disabled
}

func (c counts) String() string {
	return fmt.Sprintf("%d tests, %d failed, %d errors, %d skipped, %d disabled", c.Tests, c.Failures, c.Errors, c.Skipped, c.Disabled)
}

// fewest is less than any full run of the suite has; a run of fewer tests left something out.
const fewest = 980

// runSuite runs the suite once and judges it by its results files; an exit code other than 0 fails it too.
func runSuite(t testing.TB, suite, registry string) (counts, error) {
	t.Helper()
	results := filepath.Join(t.TempDir(), "results")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, suite)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir,
		"OCI_REGISTRY=" + registry, "OCI_TLS=disabled", "OCI_VERSION=dev", "OCI_LOG=warn", "OCI_RESULTS_DIR=" + results}
	for _, s := range everySwitch {
		cmd.Env = append(cmd.Env, s+"=true")
	}
	out, exit := cmd.CombinedOutput()
	c, err := judge(results)
	if err = errors.Join(err, exit); err != nil {
		return c, fmt.Errorf("%w\n%s", err, lastLines(out, 40))
	}
	return c, nil
}

// judge reads the results of one run: it passed only if every test, every API and every kind of data passed.
func judge(results string) (counts, error) {
	var c counts
	junit, err := os.ReadFile(filepath.Join(results, "junit.xml"))
	if err != nil {
		return c, fmt.Errorf("read results: %w", err)
	}
	if err := xml.Unmarshal(junit, &c); err != nil {
		return c, fmt.Errorf("decode results: %w", err)
	}
	var problems []error
	if c.Failures+c.Errors+c.Skipped+c.Disabled > 0 {
		problems = append(problems, fmt.Errorf("not all passed: %v", c))
	}
	if c.Tests < fewest {
		problems = append(problems, fmt.Errorf("only %d tests ran, expected at least %d", c.Tests, fewest))
	}
	summary, err := os.ReadFile(filepath.Join(results, "results.yaml"))
	if err != nil {
		return c, fmt.Errorf("read results: %w", err)
	}
	var r struct {
		Config struct {
			APIs yaml.Node `yaml:"apis"`
			Data yaml.Node `yaml:"data"`
		} `yaml:"config"`
		APIs map[string]string `yaml:"apis"`
		Data map[string]string `yaml:"data"`
	}
	if err := yaml.Unmarshal(summary, &r); err != nil {
		return c, fmt.Errorf("decode results: %w", err)
	}
	for _, group := range []map[string]string{r.APIs, r.Data} {
		if len(group) == 0 {
			problems = append(problems, errors.New("results name no API or no data"))
		}
		for name, status := range group {
			if status != "Pass" {
				problems = append(problems, fmt.Errorf("%s: %s", name, status))
			}
		}
	}
	for _, switches := range []*yaml.Node{&r.Config.APIs, &r.Config.Data} {
		if off := switchedOff(switches, ""); len(off) > 0 || switches.IsZero() {
			problems = append(problems, fmt.Errorf("switched off: %v", off))
		}
	}
	return c, errors.Join(problems...)
}

func switchedOff(n *yaml.Node, path string) (off []string) {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			off = append(off, switchedOff(n.Content[i+1], path+"."+n.Content[i].Value)...)
		}
		return off
	}
	if n.Value != "true" {
		off = append(off, path)
	}
	return off
}

func TestConformanceIsJudgedByItsResults(t *testing.T) {
	const junit = `<testsuites tests="990" failures="%d" errors="%d" skipped="%d"></testsuites>`
	const summary = "config:\n  apis:\n    blobs:\n      delete: %v\n  data:\n    sparse: true\napis:\n  Blob delete: %s\ndata:\n  Image: Pass\n"
	for _, c := range []struct {
		name                    string
		failed, errors, skipped int
		on                      bool
		status                  string
		want                    string // in the error; empty: passes
	}{
		{name: "all pass", on: true, status: "Pass"},
		{name: "one failure", failed: 1, on: true, status: "Pass", want: "not all passed"},
		{name: "one error", errors: 1, on: true, status: "Pass", want: "not all passed"},
		{name: "one skipped", skipped: 1, on: true, status: "Pass", want: "not all passed"},
		{name: "a switch off", status: "Pass", want: "switched off: [.blobs.delete]"},
		{name: "an API disabled", on: true, status: "Disabled", want: "Blob delete: Disabled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, content string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("junit.xml", fmt.Sprintf(junit, c.failed, c.errors, c.skipped))
			write("results.yaml", fmt.Sprintf(summary, c.on, c.status))
			_, err := judge(dir)
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
		})
	}
	if _, err := judge(t.TempDir()); err == nil {
		t.Fatal("a run without results passed")
	}
}

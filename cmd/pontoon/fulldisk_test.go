package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/cluster"
)

// A node that waits for space has an operators' door like any other, and every verb there says why it is refused. (That the
// wait ends by itself, and the rest of a real disk, is chaos' to show.)
func TestANodeThatWaitsForSpaceSaysSoToEveryVerb(t *testing.T) {
	dir := socketDir(t)
	c := mustParse(t, "", "REGISTRY_CLUSTER_DATADIR="+dir, "REGISTRY_HTTP_ADDR=127.0.0.1:0", "REGISTRY_HTTP_DEBUG_ADDR=none").Config
	space := cluster.NewSpace(dir, 1<<60, 0) // no disk has as much
	if f, err := space.Look(); err != nil || f.Level != cluster.Full {
		t.Fatalf("got %+v, %v", f, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &waiting{cfg: c, log: slog.New(slog.DiscardHandler), space: space, started: time.Now()}
	done := make(chan error, 1)
	go func() { done <- w.run(ctx, laptop()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the wait ended with %v", err)
		}
	})
	verb := func(args ...string) (string, error) {
		var out, errs bytes.Buffer
		err := run(t.Context(), append(args, "--socket", filepath.Join(dir, socketName)), stdio{strings.NewReader(""), &out, &errs})
		return out.String() + errs.String() + fmt.Sprint(err), err
	}
	var out string
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out, "disk full: "+dir); out, _ = verb("status") {
		select {
		case err := <-done:
			done <- nil
			t.Fatalf("the node ended instead of waiting: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("status says\n%s", out)
		}
	}
	if out, err := verb("cluster", "members"); err != nil {
		t.Errorf("members says %s", out)
	}
	for _, args := range []string{"cluster leave --yes", "cluster remove n2 --yes", "cluster transfer", "cluster finalize", "cluster trust", "repo list"} {
		out, err := verb(strings.Fields(args)...)
		if err == nil || exitCode(err) != exitUnavailable || !strings.Contains(out, "disk full: "+dir) {
			t.Errorf("%s ends with %d and says %s", args, exitCode(err), out)
		}
	}
}

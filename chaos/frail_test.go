package chaos

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAFrailNodeMayEndUntilItHasRecovered: a full disk may end a node after it has said that it is full, and before there is
// space again.
func TestAFrailNodeMayEndUntilItHasRecovered(t *testing.T) {
	dir := t.TempDir()
	program, end := filepath.Join(dir, "frail"), filepath.Join(dir, "end")
	// It is called as "frail serve", and ends with an error once there is the file that is called its configuration.
	if err := os.WriteFile(program, []byte("#!/bin/sh\nwhile [ ! -e \"$2\" ]; do sleep 0.02; done\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, name: "node", logs: dir, binary: program, config: end}
	n.startFrail()
	if err := n.supervised(t.Context(), time.Minute, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(end, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-n.proc.done
	if text := n.proc.misbehaved(); text != "" {
		t.Fatalf("it ended while it might: %s", text)
	}

	if err := os.Remove(end); err != nil {
		t.Fatal(err)
	}
	debug := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer debug.Close()
	n.debug = strings.TrimPrefix(debug.URL, "http://")
	if err := n.recovered(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	n.proc.mu.Lock()
	defer n.proc.mu.Unlock()
	if n.proc.over() || n.proc.expected {
		t.Error("it has ended, or may end although it is ready")
	}
}

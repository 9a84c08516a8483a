package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAHungDiskUnderTheAddressesDoesNotHoldUpCalls(t *testing.T) {
	d, err := openDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// Opening a FIFO for writing hangs until somebody reads: a save that hangs.
	fifo := filepath.Join(d.path, "peers.json.tmp")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	saved := make(chan error, 1)
	go func() { saved <- d.remember(map[string]address{"p": {Node: "a:1"}}) }()
	defer func() {
		f, err := os.OpenFile(fifo, os.O_RDWR, 0o600)
		if err != nil {
			t.Error(err)
		}
		<-saved // a FIFO cannot be synced, so it fails
		if err := errors.Join(f.Close(), d.Close()); err != nil {
			t.Error(err)
		}
	}()
	answered := make(chan struct{})
	go func() {
		for range 50 {
			d.who()
			d.address("p")
			<-time.After(time.Millisecond)
		}
		close(answered)
	}()
	select {
	case <-answered:
	case err := <-saved:
		saved <- err
		t.Fatalf("the save did not hang: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("who waits for the disk")
	}
}

func TestAMemberWhoseLogIsGoneIsRefused(t *testing.T) {
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen, cfg.Secrets = "", "", nil
	n := start(t, cfg)
	settle(t, []*running{n})
	n.halt(t)
	// Votes and entries are forgotten, only the name is left.
	if err := errors.Join(os.RemoveAll(filepath.Join(dataOf(n), "raft")), os.RemoveAll(filepath.Join(dataOf(n), "state"))); err != nil {
		t.Fatal(err)
	}
	if _, err := tryStart(t, cfg); err == nil || !strings.Contains(err.Error(), "log was lost") {
		t.Errorf("got %v", err)
	}
}

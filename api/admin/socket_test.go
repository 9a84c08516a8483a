package admin

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestTheSocketIsItsOwnersOnly(t *testing.T) {
	r := newRig(t)
	info, err := os.Stat(r.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, expected mode 0600", info, err)
	}
}

func TestASocketThatAnswersIsNotReplaced(t *testing.T) {
	r := newRig(t)
	_, err := Listen(t.Context(), r.path, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "another pontoon process answers on it") {
		t.Errorf("got %v", err)
	}
	if _, err := r.status.GetStatus(t.Context(), nil); err != nil && connect.CodeOf(err) == connect.CodeUnavailable {
		t.Errorf("the first socket is gone: %v", err)
	}
}

func TestTheSocketOfADeadProcessIsReplaced(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as a process that was killed leaves it
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Listen(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after Close: got %v, expected no socket", err)
	}
}

func TestAFileInTheSocketsPlaceIsLeftAlone(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), path, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "a file is in its place") {
		t.Errorf("got %v", err)
	}
	if body, err := os.ReadFile(path); err != nil || string(body) != "precious" {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestAPathTooLongForTheKernelIsNamed(t *testing.T) {
	_, err := Listen(t.Context(), "/"+strings.Repeat("x", pathBound), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "expected at most 103") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyRootAndTheNodesOwnUserAreLetIn(t *testing.T) {
	for uid, in := range map[int]bool{0: true, 1000: true, 1001: false, 65534: false} {
		if err := permit(uid, 1000); (err == nil) != in {
			t.Errorf("user %d at a node of user 1000: got %v", uid, err)
		}
	}
	if permit(1000, 0) == nil {
		t.Error("a user is let in to root's node")
	}
}

func TestOnlyUnixConnectionsHaveAnIdentity(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	_ = a.SetDeadline(time.Now().Add(time.Second))
	if _, err := identify(a); err == nil {
		t.Error("a pipe has an identity")
	}
	if _, ok := identityOf(ConnContext(t.Context(), a)); ok {
		t.Error("a context without the socket has an identity")
	}
}

func TestEveryKindHasACode(t *testing.T) {
	for k := range metav1.Kind_name {
		if code := codeOfKind(metav1.Kind(k)); code == connect.CodeInternal &&
			metav1.Kind(k) != metav1.Kind_KIND_INTERNAL && metav1.Kind(k) != metav1.Kind_KIND_UNSPECIFIED {
			t.Errorf("%s has no code", metav1.Kind(k))
		}
	}
}

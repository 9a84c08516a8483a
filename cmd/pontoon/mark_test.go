package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/fs"
)

func newMark(t *testing.T) (ownerMark, blobs.Objects) {
	t.Helper()
	s, err := fs.Open(t.Context(), fs.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return ownerMark{s, slog.New(slog.DiscardHandler)}, s
}

func TestOfTwoClustersOneGetsTheStore(t *testing.T) {
	m, _ := newMark(t)
	if id, epoch, err := m.Owner(t.Context()); id != "" || epoch != "" || err != nil {
		t.Errorf("a new store belongs to %q %q, %v", id, epoch, err)
	}
	if err := m.Claim(t.Context(), "one", "e1"); err != nil {
		t.Fatal(err)
	}
	if err := m.Claim(t.Context(), "one", "e1"); err != nil {
		t.Errorf("claiming what is one's own: %v", err)
	}
	for _, other := range [][2]string{{"two", "e2"}, {"one", "e2"}} {
		if err := m.Claim(t.Context(), other[0], other[1]); err == nil || !strings.Contains(err.Error(), "it belongs to cluster one") {
			t.Errorf("claim by %v: got %v", other, err)
		}
	}
	if id, epoch, err := m.Owner(t.Context()); id != "one" || epoch != "e1" || err != nil {
		t.Errorf("got %q %q, %v", id, epoch, err)
	}
}

func TestAMarkThatCannotBeReadIsNobodysToTake(t *testing.T) {
	for _, body := range []string{"", "{}", "null", `{"cluster":"x"}`, "garbage"} {
		m, objects := newMark(t)
		if _, err := objects.PutIfAbsent(t.Context(), markName, []byte(body)); err != nil {
			t.Fatal(err)
		}
		if id, _, err := m.Owner(t.Context()); err == nil {
			t.Errorf("%q: got owner %q", body, id)
		}
		if err := m.Claim(t.Context(), "one", "e1"); err == nil {
			t.Errorf("%q: was claimed", body)
		}
	}
}

// plain is a store without conditional writes.
type plain struct{ blobs.Objects }

func (plain) PutIfAbsent(context.Context, string, []byte) (string, error) {
	return "", blobs.ErrUnsupported
}

func (plain) Get(context.Context, string) ([]byte, string, error) { return nil, "", blobs.ErrNotFound }

func TestAStoreWithoutConditionalWritesIsNamedAndTaken(t *testing.T) {
	var log strings.Builder
	m := ownerMark{plain{}, slog.New(slog.NewTextHandler(&log, nil))}
	if err := m.Claim(t.Context(), "one", "e1"); err != nil || !strings.Contains(log.String(), "no conditional writes") {
		t.Errorf("got %v, log %s", err, log.String())
	}
}

// away is a store that does not answer.
type away struct{ blobs.Objects }

func (away) PutIfAbsent(context.Context, string, []byte) (string, error) {
	return "", blobs.ErrUnavailable
}

func TestAStoreThatDoesNotAnswerIsNotClaimed(t *testing.T) {
	if err := (ownerMark{away{}, nil}).Claim(t.Context(), "one", "e1"); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

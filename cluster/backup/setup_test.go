package backup

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// recorder is a log as a cluster would have it, with a state that has applied it.
type recorder struct {
	t     testing.TB
	state *meta.State
	log   []meta.LogEntry
}

func newRecorder(t testing.TB) *recorder {
	r := &recorder{t: t, state: openState(t)}
	r.apply(&metav1.Command{Kind: &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{
		ClusterId: "c0", Epoch: "e0", Incarnation: 1, Version: 2, Name: "test"}}})
	r.apply(&metav1.Command{Kind: &metav1.Command_OpenTerm{OpenTerm: &metav1.OpenTerm{Term: 1, NodeId: "n1", Settings: meta.DefaultSettings()}}})
	return r
}

func openState(t testing.TB) *meta.State {
	t.Helper()
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	s, err := meta.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func entryOf(t testing.TB, index uint64, commands ...*metav1.Command) meta.LogEntry {
	t.Helper()
	for _, c := range commands {
		if c.Envelope == nil {
			c.Envelope = &metav1.Envelope{NodeId: "n1"}
		}
	}
	data, err := proto.Marshal(&metav1.Entry{Format: 1, ClusterTime: int64(index) * 1e9, WallTime: int64(index) * 1e9, Commands: commands})
	if err != nil {
		t.Fatal(err)
	}
	return meta.LogEntry{Index: index, Term: 1, Data: data}
}

// apply adds an entry; some indexes are Raft's own.
func (r *recorder) apply(commands ...*metav1.Command) {
	r.t.Helper()
	applied, _ := r.state.Applied()
	e := entryOf(r.t, applied+1, commands...)
	if _, err := r.state.Apply([]meta.LogEntry{e}); err != nil {
		r.t.Fatal(err)
	}
	r.log = append(r.log, e)
}

func acquire(name string) *metav1.Command {
	return &metav1.Command{Kind: &metav1.Command_AcquireLock{AcquireLock: &metav1.AcquireLock{Name: name, Holder: "h", Ttl: 1e15}}}
}

// push is a manifest of size bytes that do not compress.
func push(n, size int) *metav1.Command {
	body := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	_, _ = rng.Read(body) // never fails
	sum := sha256.Sum256(body)
	return &metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
		Repository: fmt.Sprintf("p/r%d", n%7), Digest: append([]byte{1}, sum[:]...), MediaType: "application/x", Body: body, Size: int64(size), Tags: []string{fmt.Sprintf("t%d", n)},
	}}}
}

// fill adds n manifests of size bytes.
func (r *recorder) fill(n, size int) {
	r.t.Helper()
	applied, _ := r.state.Applied()
	for i := range n {
		r.apply(push(int(applied)+i, size))
	}
}

func (r *recorder) view() *meta.View {
	v := r.state.View()
	r.t.Cleanup(v.Close)
	return v
}

func exported(t testing.TB, v *meta.View) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := v.Export(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

package backup

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
	"github.com/pontoon-registry/pontoon/blobs/mem"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// world is a cluster with a log, an archive and a judge: a Ledger and an Entries as cluster.Node is.
type world struct {
	t     *testing.T
	state *meta.State
	store *mem.Archive
	// archive is the store with faults.
	archive *blobstest.FaultyArchive
	metrics *figures
	lines   *lines
	began   time.Time
	version uint32

	mu  sync.Mutex // guards what follows
	log []meta.LogEntry
	// compacted is the index up to which the log is gone.
	compacted uint64
	proposals int
	calls     int
	// fault is asked before each proposal of a duty; its answer is what happens instead, or after.
	fault func(n int, c *metav1.Command) (before, after error)
	// broken is asked before each call to the archive, likewise.
	broken func(n int) (before, after error)
	// hit is called when a fault has had its effect.
	hit func()
	// changed is what the store keeps instead of what it is given.
	changed func(name string, body []byte) []byte
	// emptied: somebody took away what the ledger calls complete.
	emptied bool
	owns    error
	cfg     Config
}

// newWorld is made within a bubble of synctest.
func newWorld(t *testing.T, cfg Config) *world { return newWorldOf(t, cfg, neededVersion) }

func newWorldOf(t *testing.T, cfg Config, version uint32) *world {
	w := &world{t: t, state: openState(t), store: mem.New(0).Archive(), metrics: &figures{}, lines: &lines{}, began: time.Now(), version: version}
	w.archive = blobstest.NewFaultyArchive(&judged{w})
	w.must(&metav1.Command{Kind: &metav1.Command_InitCluster{InitCluster: &metav1.InitCluster{
		ClusterId: "c0", Epoch: "e0", Incarnation: 1, Version: w.version, Name: "test"}}})
	w.must(&metav1.Command{Kind: &metav1.Command_OpenTerm{OpenTerm: &metav1.OpenTerm{Term: 1, NodeId: "n1", Settings: meta.DefaultSettings()}}})
	cfg.Ledger, cfg.Archive, cfg.Log, cfg.Release = w, w.archive, w, "v1"
	cfg.Owns = func(context.Context) error { return w.owns }
	cfg.Logger, cfg.Metrics = slog.New(slog.NewTextHandler(w.lines, nil)), w.metrics
	w.cfg = cfg
	return w
}

// lines are what was logged.
type lines struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// figures is Metrics.
type figures struct {
	mu       sync.Mutex // guards all
	verified time.Time
	entries  uint64
	waiting  time.Duration
	failed   map[string]int
	idle     bool
}

func (f *figures) BackupVerified(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verified, f.idle = at, false
}

func (f *figures) BackupLag(entries uint64, waiting time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries, f.waiting = entries, waiting
}

func (f *figures) BackupFailed(step string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = map[string]int{}
	}
	f.failed[step]++
}

func (f *figures) BackupIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = true
}

func (f *figures) count(step string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed[step]
}

// View is meta.Ledger's.
func (w *world) View(ctx context.Context, _ meta.Read, fn func(*meta.View) error) error {
	if ctx.Err() != nil {
		return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "deposed")
	}
	v := w.state.View()
	defer v.Close()
	return fn(v)
}

// Propose is meta.Ledger's.
func (w *world) Propose(ctx context.Context, c *metav1.Command) (*metav1.Result, error) {
	if ctx.Err() != nil {
		return nil, meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "deposed")
	}
	w.mu.Lock()
	w.proposals++
	n, fault := w.proposals, w.fault
	w.mu.Unlock()
	var before, after error
	if fault != nil {
		before, after = fault(n, c)
	}
	if before != nil {
		w.hit()
		return nil, before
	}
	w.judge()
	result, err := w.apply(c)
	w.judge()
	if after != nil {
		w.hit()
		return nil, after
	}
	return result, err
}

func (w *world) apply(c *metav1.Command) (*metav1.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c = proto.CloneOf(c)
	if c.Envelope == nil {
		c.Envelope = &metav1.Envelope{NodeId: "n1"}
	}
	data, err := proto.Marshal(&metav1.Entry{Format: 1, ClusterTime: int64(time.Since(w.began)), WallTime: time.Now().UnixNano(), Commands: []*metav1.Command{c}})
	if err != nil {
		return nil, err
	}
	applied, _ := w.state.Applied()
	e := meta.LogEntry{Index: applied + 1, Term: 1, Data: data}
	results, err := w.state.Apply([]meta.LogEntry{e})
	if err != nil {
		return nil, err
	}
	w.log = append(w.log, e)
	return results[0][0], meta.FromRefusal(results[0][0].GetRefusal())
}

func (w *world) must(c *metav1.Command) {
	w.t.Helper()
	if _, err := w.apply(c); err != nil {
		w.t.Fatal(err)
	}
}

// State is that of Entries.
func (w *world) State() (uint64, []byte) { return w.state.Hash() }

// Entries is that of Entries.
func (w *world) Entries(after uint64, limit int64) (out []meta.LogEntry, chain []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	through, head := w.state.Hash()
	if after < w.compacted {
		return nil, nil, meta.Refuse(metav1.Kind_KIND_UNKNOWN, metav1.Noun_NOUN_CURSOR, "compacted")
	}
	for _, e := range w.log {
		if e.Index > after && limit > 0 {
			out = append(out, e)
			limit -= int64(len(e.Data))
		}
	}
	if len(out) > 0 && out[len(out)-1].Index == through {
		chain = head
	}
	return out, chain, nil
}

// write is somebody's push.
func (w *world) write(n int) {
	w.t.Helper()
	w.must(push(n, 100))
}

// tick is the clock's duty.
func (w *world) tick() {
	w.t.Helper()
	w.must(&metav1.Command{Kind: &metav1.Command_TrimEvents{TrimEvents: &metav1.TrimEvents{Limit: 1}}})
}

// lead runs a keeper as the leader would; stop deposes it.
func (w *world) lead() (stop func()) {
	w.t.Helper()
	k, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
}

// rows answers the ledger's backups.
func (w *world) rows() []meta.BackupItem {
	v := w.state.View()
	defer v.Close()
	rows, err := v.Backups()
	if err != nil {
		w.t.Error(err)
	}
	return rows
}

// judge is G6 at each moment: what the ledger calls complete is whole in the archive.
func (w *world) judge() {
	if w.emptied {
		return
	}
	for _, b := range w.rows() {
		if b.GetPlace() != PlaceArchive || b.GetState() != metav1.BackupState_BACKUP_STATE_COMPLETE {
			continue
		}
		p, ok := parseName(b.GetName() + manifestName)
		if !ok {
			w.t.Errorf("backup %s is named %s", b.ID, b.GetName())
			continue
		}
		s, err := OpenStored(context.Background(), w.store, p)
		if err == nil {
			err = s.Verify(context.Background(), nil)
		}
		if err != nil || string(s.SHA256()) != string(b.GetSha256()) {
			w.t.Errorf("the ledger says that %s is complete: %v", b.ID, err)
		}
	}
}

// called makes a call to the archive under the fault that meets it.
func (w *world) called(call func() error) error {
	w.mu.Lock()
	w.calls++
	n, broken := w.calls, w.broken
	w.mu.Unlock()
	var before, after error
	if broken != nil {
		before, after = broken(n)
	}
	if before != nil {
		w.hit()
		return before
	}
	err := call()
	if after != nil {
		w.hit()
		return after
	}
	return err
}

// judged is the store, every deletion from which is judged before it is done.
type judged struct{ w *world }

// Put implements blobs.Archive.
func (j *judged) Put(ctx context.Context, name string, body []byte) error {
	if p, ok := parseName(name); ok && p.ID != "" {
		known := false
		for _, b := range j.w.rows() {
			known = known || b.ID == p.ID
		}
		if !known {
			j.w.t.Errorf("%s is written before its backup is open", name)
		}
	}
	if j.w.changed != nil {
		body = j.w.changed(name, body)
	}
	return j.w.called(func() error { return j.w.store.Put(ctx, name, body) })
}

// Get implements blobs.Archive.
func (j *judged) Get(ctx context.Context, name string) (body []byte, err error) {
	err = j.w.called(func() (err error) { body, err = j.w.store.Get(ctx, name); return err })
	return body, err
}

// List implements blobs.Archive.
func (j *judged) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) {
		if err := j.w.called(func() error { return nil }); err != nil {
			yield(blobs.Object{}, err)
			return
		}
		j.w.store.List(ctx, prefix, after)(yield)
	}
}

// Delete implements blobs.Archive.
func (j *judged) Delete(ctx context.Context, names ...string) error {
	if j.w.owns != nil {
		j.w.t.Errorf("%q are deleted from a store that is not ours", names)
	}
	for _, name := range names {
		j.w.judgeDeletion(name)
	}
	return j.w.called(func() error { return j.w.store.Delete(ctx, names...) })
}

// judgeDeletion refuses the deletion of what somebody may still restore.
func (w *world) judgeDeletion(name string) {
	p, ok := parseName(name)
	if !ok {
		w.t.Errorf("%s is deleted, which is no backup's", name)
		return
	}
	oldest := uint64(1<<64 - 1)
	for _, b := range w.rows() {
		complete := b.GetState() == metav1.BackupState_BACKUP_STATE_COMPLETE && b.GetPlace() == PlaceArchive
		if complete {
			oldest = min(oldest, b.GetIndex())
		}
		open := b.GetState() == metav1.BackupState_BACKUP_STATE_OPEN && w.changed == nil
		if p.ID == b.ID && (complete && strings.HasPrefix(name, b.GetName()) || open) {
			w.t.Errorf("%s is deleted while its backup is %v", name, b.GetState())
		}
	}
	if p.First > 0 && p.Last > oldest && !w.damaged(name) {
		w.t.Errorf("segment %s is deleted, the oldest snapshot is of %d", name, oldest)
	}
}

// damaged says that the store changed a segment: its writer may take it back.
func (w *world) damaged(name string) bool {
	body, err := w.store.Get(context.Background(), name)
	if err != nil {
		return true
	}
	_, err = decodeSegment(name, body)
	return err != nil
}

// settled checks that ledger and archive agree and nothing is left over: each complete backup and nothing else is in the
// archive, no row is open or retired, and every snapshot leads by the log to the state as it is.
func (w *world) settled() {
	w.t.Helper()
	w.judge()
	want := map[string]bool{}
	for _, b := range w.rows() {
		if b.GetState() != metav1.BackupState_BACKUP_STATE_COMPLETE {
			w.t.Errorf("backup %s is %v", b.ID, b.GetState())
		}
		want[b.GetName()] = true
	}
	stored, err := List(w.t.Context(), w.store, "")
	if err != nil {
		w.t.Fatal(err)
	}
	oldest := uint64(0)
	for _, s := range stored {
		if !want[s.Folder] || !s.Complete {
			w.t.Errorf("%s is left over", s.Folder)
		}
		if oldest == 0 || s.Index < oldest {
			oldest = s.Index
		}
	}
	if len(stored) != len(want) || len(want) == 0 {
		w.t.Errorf("%d snapshots in the archive, %d in the ledger", len(stored), len(want))
	}
	segments, err := OpenLog(w.store, "c0", 1).Segments(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range segments {
		if s.Last <= oldest {
			w.t.Errorf("segment %s is left over, the oldest snapshot is of %d", s.Name, oldest)
		}
	}
	for _, s := range stored {
		w.restores(s.Place)
	}
}

// restores replays the log over a snapshot and compares with the state.
func (w *world) restores(p Place) {
	w.t.Helper()
	s, err := OpenStored(w.t.Context(), w.store, p)
	if err != nil {
		w.t.Error(err)
		return
	}
	store, err := kv.OpenMemory()
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { w.check(store.Close()) }()
	w.check(meta.Import(store, s.Rows(w.t.Context())))
	state, err := meta.Open(store)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { w.check(state.Close()) }()
	for e, err := range s.Log().Entries(w.t.Context(), p.Index, 0) {
		if err != nil {
			w.t.Errorf("from %d: %v", p.Index, err)
			return
		}
		if _, err := state.Apply([]meta.LogEntry{e.LogEntry}); err != nil {
			w.t.Fatal(err)
		}
		if _, sum := state.Hash(); e.Chain != nil && string(sum) != string(e.Chain) {
			w.t.Errorf("from %d: at %d the head is %x, %x was recorded", p.Index, e.Index, sum, e.Chain)
		}
	}
	at, sum := state.Hash()
	if want, head := w.state.Hash(); at != want || string(sum) != string(head) {
		w.t.Errorf("from %d the log leads to %d, the state is at %d", p.Index, at, want)
	}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Error(err)
	}
}

// inWorld runs a test in a bubble whose time passes only while all wait.
func inWorld(t *testing.T, cfg Config, fn func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(newWorld(t, cfg)) })
}

var errKilled = errors.New("killed")

func newTestLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

package meta

import (
	"fmt"
	"runtime"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta/kv"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// marked is a state on disk with many blobs: of ten, nine are needed by three manifests each, in repositories of a
// thousand, and one was pushed once and never needed.
func marked(b *testing.B, blobs int) *State {
	b.Helper()
	store, err := kv.Open(b.TempDir(), kv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { closed(b, store.Close()) })
	first, err := Open(store)
	if err != nil {
		b.Fatal(err)
	}
	begin := begun()
	begin[0].GetInitCluster().Version = NewestVersion
	mustApply(b, first, entryOf(b, 1, begin...))
	closed(b, first.Close())
	fillBlobs(b, store, blobs)
	closed(b, store.Sync())
	s, err := Open(store)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { closed(b, s.Close()) })
	mustApply(b, s, entryOf(b, 2, &metav1.Command{Kind: &metav1.Command_BeginCycle{BeginCycle: &metav1.BeginCycle{
		Trigger: metav1.CycleTrigger_CYCLE_TRIGGER_SCHEDULE, Untagged: true,
	}}}))
	return s
}

func fillBlobs(b *testing.B, store *kv.Store, blobs int) {
	b.Helper()
	batch := store.Batch()
	set := func(key []byte, row proto.Message) {
		var value []byte
		var err error
		if row != nil {
			value, err = encoding.Marshal(row)
			closed(b, err)
		}
		closed(b, batch.Set(key, value))
	}
	for i := range blobs {
		d, repository := digestOf(fmt.Sprint("blob ", i)), fmt.Sprintf("project/r%d", i/1000)
		if i%1000 == 0 {
			set(nameKey(nil, rangeRepository, repository), &metav1.Repository{Bytes: 1 << 40})
			set(nameKey(nil, rangeUsage, "project"), &metav1.Usage{Bytes: 1 << 50})
		}
		set(digestKey(nil, rangeBlob, d), &metav1.Blob{Size: 1000, Store: "main", Key: fmt.Sprintf("e1/%032x/a", i)})
		set(objectKey(nil, "main", fmt.Sprintf("e1/%032x/a", i)), &metav1.Object{State: &metav1.Object_Live{Live: &metav1.Live{Digest: d.Bytes()}}})
		if i%10 == 0 {
			set(ofBlob(nil, rangeGrace, d, repository), &metav1.Grace{Since: -2 * hour})
			set(inRepository(nil, rangeGraced, repository, d), nil)
		} else {
			for n := range 3 {
				set(linkKey(nil, rangeReference, d, repository, digestOf(fmt.Sprint("manifest ", i/10, n))), nil)
			}
		}
		if batch.Len() > 4<<20 {
			closed(b, batch.Commit())
			batch = store.Batch()
		}
	}
	closed(b, batch.Commit())
}

// BenchmarkMark looks at a million blobs in views of a hundred thousand: the whole phase MARK of a cycle but its commands.
func BenchmarkMark(b *testing.B) {
	const blobs = 1_000_000
	s := marked(b, blobs)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	for b.Loop() {
		found, visited := 0, int64(0)
		var at Digest
		for done := false; !done; {
			v := s.View()
			rows, next, end, n, err := v.Unneeded(at, 1000, 100_000)
			v.Close()
			if err != nil {
				b.Fatal(err)
			}
			at, done = next, end
			found, visited = found+len(rows), visited+n
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapAlloc)
		}
		if found != blobs/10 || visited != blobs {
			b.Fatalf("found %d of %d blobs, expected a tenth of %d", found, visited, blobs)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/million")
	b.ReportMetric(float64(peak-min(peak, before.HeapAlloc))/(1<<20), "MiB-peak")
}

// BenchmarkCondemn is what a node spends on one CondemnBlobs: everybody's writes wait for it.
func BenchmarkCondemn(b *testing.B) {
	for _, size := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := marked(b, 200_000)
			index, cycle := uint64(2), uint64(2)
			next, n := 0, 0
			for b.Loop() {
				c := &metav1.CondemnBlobs{Cycle: cycle}
				for range size {
					c.Digests = append(c.Digests, digestOf(fmt.Sprint("blob ", next%200_000)).Bytes())
					next += 10
				}
				index++
				mustApply(b, s, entryOf(b, index, &metav1.Command{Kind: &metav1.Command_CondemnBlobs{CondemnBlobs: c}}))
				n++
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/command")
		})
	}
}

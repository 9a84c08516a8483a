package check

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAHistoryIsReadAsItWasWritten(t *testing.T) {
	var file bytes.Buffer
	h := NewHistory(&file, 42, 1000)
	var group sync.WaitGroup
	for client := range 8 {
		group.Go(func() {
			for range 20 {
				call := h.Now()
				h.Add(Operation{Client: client, Class: PullByTag, Kind: TagGet, Repo: "a", Key: "v1", Output: "sha256:1", Call: call, Outcome: Done})
			}
		})
	}
	group.Wait()
	h.Add(Operation{Class: WriteTag, Kind: TagPut, Repo: "a", Key: "v1", Input: "sha256:1", Outcome: Unknown})
	h.AddFault(Fault{Name: "kill", Target: "node1", From: time.Second, Until: 2 * time.Second})
	if err := h.Flush(); err != nil {
		t.Fatal(err)
	}
	log, err := Read(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if log.Run.Seed != 42 || log.Torn || len(log.Operations) != 161 || len(log.Faults) != 1 {
		t.Fatalf("read %+v with %d operations", log.Run, len(log.Operations))
	}
	if n := len(h.Writes()); n != 1 {
		t.Errorf("%d writes of tags, want 1", n)
	}
	if taken := h.Take(nil); !reflect.DeepEqual(taken, log.Operations) {
		t.Fatal("what is read is not what was kept")
	}
	if !reflect.DeepEqual(h.Faults(), log.Faults) {
		t.Fatalf("faults kept: %v, read: %v", h.Faults(), log.Faults)
	}
	if !reflect.DeepEqual(h.Samples(), SamplesOf(log.Operations)) || h.Len() != 161 {
		t.Fatal("the samples are not those of the operations")
	}
}

func TestAFullHistorySaysSo(t *testing.T) {
	h := NewHistory(nil, 1, 2)
	add := func(repo string) { h.Add(Operation{Kind: TagGet, Repo: repo, Outcome: Done}) }
	add("a")
	add("b")
	if taken := h.Take(func(o *Operation) bool { return o.Repo == "b" }); len(taken) != 1 || taken[0].Repo != "b" {
		t.Fatalf("took %v, want b", taken)
	}
	add("c")
	if err := h.Err(); err != nil {
		t.Fatalf("there was room: %v", err)
	}
	add("d")
	if err := h.Flush(); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	if left := h.Take(nil); len(left) != 2 || left[0].Repo != "a" || left[1].Repo != "c" {
		t.Fatalf("left are %v, want a and c", left)
	}
}

// TestAnOperationThatNoRecorderMakesIsNotLeftOutInSilence: a history that lacks it is not whole.
func TestAnOperationThatNoRecorderMakesIsNotLeftOutInSilence(t *testing.T) {
	for name, o := range map[string]Operation{
		"no kind":            {Outcome: Done},
		"no outcome":         {Kind: TagGet},
		"ends before itself": {Kind: TagGet, Outcome: Done, Call: 2, Return: 1},
	} {
		h := NewHistory(nil, 1, 9)
		h.Add(o)
		if h.Err() == nil || h.Flush() == nil || h.Len() != 0 {
			t.Errorf("%s: %v, %d kept", name, h.Err(), h.Len())
		}
	}
}

// TestWhatAsksForAChangeIsAWrite: pauses of writes and I10 go by it.
func TestWhatAsksForAChangeIsAWrite(t *testing.T) {
	for class, want := range map[string]bool{PutManifest: true, WriteTag: true, UploadBlob: true, Delete: true, Lock: true,
		PullByDigest: false, PullByTag: false, List: false, "": false} {
		if o := (Operation{Class: class, Kind: "x"}); o.writes() != want {
			t.Errorf("%q writes: %v, want %v", class, o.writes(), want)
		}
	}
}

func fileOf(tb testing.TB, ops []Operation) []byte {
	tb.Helper()
	var file bytes.Buffer
	h := NewHistory(&file, 1, len(ops))
	for _, o := range ops {
		h.Add(o)
	}
	if err := h.Flush(); err != nil {
		tb.Fatal(err)
	}
	return file.Bytes()
}

type brokenDisk struct{}

func (brokenDisk) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWhatALockProtectsIsNoRequest(t *testing.T) {
	h := NewHistory(nil, 1, 9)
	h.Add(guard(0, 1, 5, "v", Done))
	h.Add(guarded(2, 3, 5, "v"))
	h.Add(lock(4, 5, LockAcquire, 5, Done))
	if n := h.Len(); n != 1 || len(h.Take(nil)) != 3 {
		t.Fatalf("%d requests, want 1 of 3 operations", n)
	}
}

func TestAHistoryThatCannotBeWrittenSaysSo(t *testing.T) {
	h := NewHistory(brokenDisk{}, 1, 10)
	if err := h.Flush(); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("got %v", err)
	}
}

func TestWhatNoRecorderWritesIsRefused(t *testing.T) {
	const run = `{"run":{"seed":1,"began":"2026-01-01T00:00:00Z"}}` + "\n"
	const op = `{"op":{"client":1,"class":"list","kind":"tag-list","call":1,"return":2,"outcome":"done"}}` + "\n"
	for name, file := range map[string]string{
		"no run":        op,
		"second run":    run + run,
		"two at once":   `{"run":{"seed":1,"began":"2026-01-01T00:00:00Z"},"fault":{"name":"x","from":0,"until":1}}` + "\n",
		"nothing":       run + "{}\n",
		"unknown field": run + `{"op":{"kind":"tag-list","outcome":"done","color":1}}` + "\n",
		"outcome":       run + strings.Replace(op, `"done"`, `"perhaps"`, 1),
		"time":          run + strings.Replace(op, `"return":2`, `"return":0`, 1),
		"fault":         run + `{"fault":{"name":"x","from":2,"until":1}}` + "\n",
		"two values":    run + `{"fault":{"name":"x","from":0,"until":1}} {}` + "\n",
		"long":          run + strings.Repeat("x", maxLine+1) + "\n",
		"no JSON":       run + "x\n",
	} {
		if log, err := Read(strings.NewReader(file)); err == nil {
			t.Errorf("%s: read %+v", name, log)
		}
	}
	log, err := Read(strings.NewReader(run + op + op[:20]))
	if err != nil || !log.Torn || len(log.Operations) != 1 {
		t.Errorf("torn: %+v, %v", log, err)
	}
	if _, err := Read(io.MultiReader(strings.NewReader(run), errReader{})); err == nil {
		t.Error("a disk error is no end")
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

func TestOnlyWhatCertainlyHadNoEffectIsRefused(t *testing.T) {
	for _, c := range []struct {
		kind   Kind
		status int
		err    error
		want   Outcome
	}{
		{TagPut, 201, nil, Done},
		{TagPut, 412, nil, Refused},
		{TagPut, 404, nil, Refused},
		{TagPut, 429, nil, Refused},
		{TagPut, 408, nil, Unknown},
		{TagPut, 499, nil, Unknown},
		{TagPut, 500, nil, Unknown},
		{TagPut, 503, nil, Unknown},
		{TagPut, 0, nil, Unknown},
		{TagPut, 201, errors.New("reset in the body"), Unknown},
		{TagPut, 404, errors.New("reset in the body"), Unknown},
		{BlobPut, 416, nil, Unknown},
		{TagGet, 404, nil, Done},
		{TagGet, 304, nil, Done},
		{TagGet, 401, nil, Refused},
		{ManifestDelete, 404, nil, Refused},
		{ManifestDelete, 202, nil, Done},
	} {
		if got := Judge(c.kind, c.status, c.err); got != c.want {
			t.Errorf("%s answered %d, %v: %s, want %s", c.kind, c.status, c.err, got, c.want)
		}
	}
}

// FuzzRead: whatever is read is written and read again as the same.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"run":{"seed":1,"began":"2026-01-01T00:00:00Z"}}` + "\n" +
		`{"op":{"client":1,"class":"list","kind":"tag-list","call":1,"return":2,"outcome":"done"}}` + "\n" +
		`{"fault":{"name":"x","target":"node1","from":0,"until":1}}` + "\n"))
	f.Add([]byte(`{"run":{}}` + "\n" + `{"op":`))
	f.Add(fileOf(f, toyHistory(1, 5, "")))
	f.Fuzz(func(t *testing.T, file []byte) {
		log, err := Read(bytes.NewReader(file))
		if err != nil {
			return
		}
		var again bytes.Buffer
		h := NewHistory(&again, log.Run.Seed, len(log.Operations))
		for _, o := range log.Operations {
			h.Add(o)
		}
		for _, f := range log.Faults {
			h.AddFault(f)
		}
		if err := h.Flush(); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		second, err := Read(&again)
		if err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
		if len(second.Operations) != len(log.Operations) || !reflect.DeepEqual(second.Faults, log.Faults) {
			t.Fatalf("got %+v, want %+v", second, log)
		}
	})
}

// FuzzJudge: whatever is read can be judged.
func FuzzJudge(f *testing.F) {
	for seed, defect := range []string{"", "stale read", "two holders"} {
		f.Add(fileOf(f, toyHistory(uint64(seed), 5, defect)))
	}
	f.Fuzz(func(_ *testing.T, file []byte) {
		if log, err := Read(bytes.NewReader(file)); err == nil {
			few := log.Operations[:min(len(log.Operations), 30)]
			CheckLinear(few, 10*time.Millisecond)
			CheckInvariants(&Facts{Operations: few})
		}
	})
}

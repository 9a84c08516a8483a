package meta

import (
	"testing"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestEveryKindHasTheVersionItCameWith: what the log of the first release holds is of version 1 for ever;
// a new kind must say its own, or older nodes stop at it (M7).
func TestEveryKindHasTheVersionItCameWith(t *testing.T) {
	first := map[string]bool{}
	replayOld(t, oldLogs[0].file, first)
	later := map[string]uint32{
		"raise_version":     1, // how a cluster of version 1 gets out of it; who proposes it sees to it that all know it
		"raise_incarnation": 2,
	}
	for _, name := range []string{"request_cycle", "begin_cycle", "advance_cycle", "condemn_blobs", "delete_untagged", "forget_keys",
		"open_backup", "complete_backup", "retire_backup", "forget_backup"} {
		later[name] = 3
	}
	fields := (&metav1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		c := &metav1.Command{}
		c.ProtoReflect().Set(f, c.ProtoReflect().NewField(f))
		want := later[string(f.Name())]
		if first[string(f.Name())] {
			want = 1
		}
		if got := NeededVersion(c); got != want {
			t.Errorf("%s: needs version %d, expected %d", f.Name(), got, want)
		}
	}
	if got := NeededVersion(&metav1.Command{}); got != 0 {
		t.Errorf("no kind: needs version %d, expected 0", got)
	}
}

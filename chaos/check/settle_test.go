package check

import (
	"testing"
	"time"
)

// TestUnknownOutcomesAreBoundedByOtherAnswers: without the bounds every decision is the same and a search takes for ever.
func TestUnknownOutcomesAreBoundedByOtherAnswers(t *testing.T) {
	const open = -1
	lockOps := []Operation{
		lock(0, 1, LockAcquire, 5, Done), lock(2, 3, LockRelease, 5, Unknown), lock(20, 21, LockAcquire, 9, Done),
		guard(30, 31, 9, "v", Done),
	}
	for _, c := range []struct {
		name   string
		settle func([]*Operation) []settled
		ops    []Operation
		which  int
		until  int // milliseconds
		spare  int
	}{
		{"seen by a read", settleTags, []Operation{put(0, 1, "a", "x", "", Unknown), get(5, 6, "a", "x"), get(8, 9, "a", "x")}, 0, 6, needed},
		{"seen by a refusal", settleTags, []Operation{put(0, 1, "a", "x", "", Unknown), refused(put(5, 6, "a", "y", Absent, ""), "x")}, 0, 6, needed},
		{"seen by a condition that held", settleTags, []Operation{put(0, 1, "a", "x", "", Unknown), put(5, 6, "a", "y", "x", Done)}, 0, 6, needed},
		{"seen by a deletion whose condition held", settleTags, []Operation{put(0, 1, "a", "x", "", Unknown), untag(5, 6, "a", "x", Done)}, 0, 6, needed},
		{"seen on one of its tags", settleTags, []Operation{put(0, 1, "a,b", "x", "", Unknown), get(5, 6, "b", "x")}, 0, 6, needed},
		{"one of two writers", settleTags, []Operation{put(0, 1, "a", "x", "", Unknown), put(0, 1, "a", "x", "", Done), get(5, 6, "a", "x")}, 0, open, optional},
		{"seen by nobody", settleTags, []Operation{put(0, 1, "a", "x", "", Unknown), get(5, 6, "a", "")}, 0, open, idle},
		{"seen before it was called", settleTags, []Operation{put(10, 11, "a", "x", "", Unknown), get(5, 6, "a", "x")}, 0, 10, needed},
		{"its condition is past", settleTags, []Operation{put(2, 3, "a", "y", "x", Unknown), put(0, 1, "a", "x", "", Done), get(5, 6, "a", "z")}, 0, 6, idle},
		{"its condition may come again", settleTags, []Operation{put(2, 3, "a", "y", "x", Unknown), put(0, 1, "a", "x", "", Done),
			put(0, 1, "a", "x", "", Unknown), get(5, 6, "a", "z")}, 0, open, idle},
		{"its condition may come yet", settleTags, []Operation{put(2, 3, "a", "y", "x", Unknown), put(0, 1, "a", "x", "", Unknown), get(5, 6, "a", "z")}, 0, open, idle},
		{"its manifest has left all tags", settleTags, []Operation{manifest(2, 3, ManifestDelete, "x", "", Unknown), put(0, 1, "a,b", "x", "", Done),
			get(5, 6, "a", "z"), get(7, 8, "b", "z")}, 0, 8, optional},
		{"its manifest has left one tag", settleTags, []Operation{manifest(2, 3, ManifestDelete, "x", "", Unknown), put(0, 1, "a,b", "x", "", Done),
			get(5, 6, "a", "z")}, 0, open, optional},
		{"a higher token was granted", settleLocks, lockOps, 1, 21, needed},
		{"no higher token was granted", settleLocks, append(lockOps[:3:3], lock(22, 23, LockRelease, 9, Unknown)), 3, open, needed},
		{"force is for every token", settleLocks, append(lockOps[:3:3], lock(4, 5, LockRelease, 0, Unknown)), 3, open, needed},
		{"a renewal under a lower token", settleLocks, append(lockOps[:3:3], lock(4, 5, LockRenew, 5, Unknown)), 3, 21, idle},
		{"a higher token has written", settleLocks, append(lockOps[:4:4], guard(4, 5, 5, "w", Unknown)), 4, 31, idle},
		{"a higher token has perhaps written", settleLocks, append(lockOps[:3:3], guard(4, 5, 5, "w", Unknown), guard(30, 31, 9, "v", Unknown)), 3, open, idle},
		{"a higher token has not written", settleLocks, append(lockOps[:3:3], guard(4, 5, 5, "w", Unknown)), 3, open, idle},
	} {
		var ops []*Operation
		for i := range c.ops {
			ops = append(ops, &c.ops[i])
		}
		want := never
		if c.until != open {
			want = time.Duration(c.until) * time.Millisecond
		}
		if got := c.settle(ops)[c.which]; got.until != want || got.spare != c.spare {
			t.Errorf("%s: until %v, rank %d; want %v, %d", c.name, got.until, got.spare, want, c.spare)
		}
	}
}

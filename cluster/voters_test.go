package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// crewOf reads members, one word each: l the leader, v a healthy voter, u an unhealthy
// one, d a dead one; s one without a vote that is ready, n one that is not, x a dead one without.
func crewOf(text string) []candidate {
	var all []candidate
	for i, kind := range text {
		c := candidate{id: fmt.Sprintf("%c%d", kind, i), since: time.Unix(int64(i), 0)}
		c.leader = kind == 'l'
		c.voter = strings.ContainsRune("lvud", kind)
		c.healthy = strings.ContainsRune("lvs", kind)
		c.ready = strings.ContainsRune("lvs", kind)
		c.dead = strings.ContainsRune("dx", kind)
		all = append(all, c)
	}
	return all
}

func TestVotersAreChosen(t *testing.T) {
	for _, c := range []struct {
		members         string
		most            int
		promote, demote string
		why             string
	}{
		{"l", 5, "", "", "alone"},
		{"ls", 5, "s1", "", "two: either disk may be lost"},
		{"ln", 5, "", "", "not ready yet"},
		{"lvs", 5, "s2", "", "three"},
		{"lss", 5, "s1 s2", "", "three at once"},
		{"lvvs", 5, "", "", "a fourth vote tolerates no more"},
		{"lvvss", 5, "s3 s4", "", "five"},
		{"lvvvvss", 5, "", "", "the rest stands by"},
		{"lvvv", 5, "", "v3", "four become three, and one stands by"},
		{"lvvu", 5, "", "u3", "the unhealthy one first"},
		{"lvd", 5, "", "", "a dead voter stays while nobody stands by"},
		{"lvds", 5, "s3", "d2", "and loses its vote to who does"},
		{"lvdn", 5, "", "", "not to who is not ready"},
		{"lvus", 5, "", "", "one that may only be restarting keeps it"},
		{"lvdx", 5, "", "", "the dead do not replace the dead"},
		{"lvvdd", 5, "", "", "two dead of five, nobody stands by"},
		{"lvvdds", 5, "s5", "d4", "one stands by for one"},
		{"lvvddss", 5, "s5 s6", "d3 d4", "two for two"},
		{"lvvd", 5, "", "d3", "an even number with a dead one becomes odd"},
		{"lvvvv", 3, "", "v3 v4", "fewer are wanted"},
		{"lvvvvvvvv", 3, "", "v5 v6 v7 v8", "at most a minority in one pass"},
		{"vvl", 1, "", "v1", "one at a time, and never the leader"},
	} {
		promote, demote := chooseVoters(crewOf(c.members), c.most)
		slices.Sort(demote)
		if p, d := strings.Join(promote, " "), strings.Join(demote, " "); p != c.promote || d != c.demote {
			t.Errorf("%s of %d (%s): promote %q, demote %q; expected %q and %q", c.members, c.most, c.why, p, d, c.promote, c.demote)
		}
	}
}

// TestChoosingVotersNeverCostsTheQuorum tries crews at random.
func TestChoosingVotersNeverCostsTheQuorum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		text := "l"
		for range rng.IntN(9) {
			text += string("vvvudssnx"[rng.IntN(9)])
		}
		most := 1 + 2*rng.IntN(3)
		members := crewOf(text)
		healthy, voting := tally(members)
		if toleranceOf(healthy, voting) < 0 {
			continue // such a leader leads no longer
		}
		promote, demote := chooseVoters(members, most)
		wasted, spared := false, false
		for i, m := range members {
			loses := slices.Contains(demote, m.id)
			wasted = wasted || loses && m.healthy
			spared = spared || m.voter && !m.healthy && !loses
			members[i].voter = m.voter && !loses || slices.Contains(promote, m.id)
			if loses && m.leader || members[i].voter && !m.voter && !m.ready {
				t.Fatalf("%s of %d: promote %v, demote %v", text, most, promote, demote)
			}
		}
		after, left := tally(members)
		switch {
		case toleranceOf(after, left) < 0:
			t.Fatalf("%s of %d: promote %v, demote %v: %d of %d voters are healthy", text, most, promote, demote, after, left)
		case wasted && spared:
			t.Fatalf("%s of %d: demote %v: a healthy voter before one that is not", text, most, demote)
		case len(demote) > max(1, (voting-1)/2):
			t.Fatalf("%s of %d: %d of %d voters lose their vote at once", text, most, len(demote), voting)
		}
	}
}

// tally answers how many voters are healthy, of how many.
func tally(members []candidate) (healthy, voting int) {
	for _, m := range members {
		if m.voter {
			voting++
			if m.healthy {
				healthy++
			}
		}
	}
	return healthy, voting
}

func TestRemovalsAreJudged(t *testing.T) {
	for _, c := range []struct {
		before, left, healthy int
		force                 bool
		want                  string
	}{
		{0, 0, 0, true, "is the last voter"},
		{1, 2, 2, false, "no further voter may fail (2 voters are left)"},
		{1, 2, 2, true, ""},
		{0, 1, 1, false, ""}, // of two
		{0, 2, 2, false, ""}, // the dead one of three
		{0, 2, 1, false, "only 1 of 2 voters answer"},
		{0, 2, 1, true, ""},
		{2, 4, 4, false, ""},
		{1, 3, 3, false, ""}, // somebody stood by
	} {
		got := judgeRemoval("n", c.before, c.left, c.healthy, c.force)
		if (got == nil) != (c.want == "") || got != nil && !strings.Contains(got.Error(), c.want) {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

package check

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file makes random histories of a simple registry, which does one operation after the other, each at an instant
// between its call and its return, or later when nobody got the answer; and breaks the registry.

// toy is the registry.
type toy struct {
	rng       *rand.Rand
	defect    string              // what is done wrong, now and then
	tags      map[string][]string // all that a tag was; the last is now
	manifests map[string]bool     // digest → there; a key that is false was there
	lock      toyLock
}

type toyLock struct {
	held       bool
	told       []uint64 // the tokens that somebody got
	token      uint64
	until      time.Duration
	guardToken uint64
	guardValue string
}

const (
	toyClients = 4
	toyTags    = 3
	toyTTL     = 100 * time.Millisecond
)

// instant is an operation with the moment that it takes effect.
type instant struct {
	o  *Operation
	at time.Duration
}

// toyHistory is what the clients of a registry with a defect saw.
func toyHistory(seed uint64, n int, defect string) []Operation {
	return toyStorm(seed, toyClients, n, 0, defect)
}

// toyStorm is the same for more clients, of which in every other 20 ms most get no answer for a time.
func toyStorm(seed uint64, clients, n int, silence time.Duration, defect string) []Operation {
	t := &toy{rng: rand.New(rand.NewPCG(seed, 1)), defect: defect, tags: map[string][]string{}, manifests: map[string]bool{}}
	var plan []instant
	for client := range clients {
		var at time.Duration
		for i := range n {
			o := t.plan(client, i)
			at += time.Duration(t.rng.IntN(4000)) * time.Microsecond
			o.Call = at
			at += time.Duration(1+t.rng.IntN(3000)) * time.Microsecond
			o.Return = at
			effect := o.Call + time.Duration(t.rng.Int64N(int64(o.Return-o.Call)+1))
			if !o.Kind.Reads() && t.rng.IntN(15) == 0 {
				o.Outcome = Unknown
				effect += time.Duration(t.rng.IntN(20_000)) * time.Microsecond
			}
			if silence > 0 && at/(20*time.Millisecond)%2 == 1 && t.rng.IntN(3) > 0 && !o.Kind.Reads() {
				o.Outcome = Unknown
				effect += time.Duration(t.rng.Int64N(int64(silence)))
				at += silence
				o.Return = at
			}
			if o.Outcome != Unknown || t.rng.IntN(2) == 0 {
				plan = append(plan, instant{o, effect})
				continue
			}
			plan = append(plan, instant{o, never})
		}
	}
	slices.SortStableFunc(plan, func(a, b instant) int { return cmp.Compare(a.at, b.at) })
	var ops []Operation
	for _, p := range plan {
		if outcome := p.o.Outcome; p.at != never {
			t.apply(p.o, p.at)
			if outcome == Unknown {
				p.o.Outcome, p.o.Status, p.o.Output, p.o.Token = Unknown, 0, "", p.o.asked()
			}
		}
		ops = append(ops, *p.o)
	}
	return ops
}

// asked is the token that the client sent.
func (o *Operation) asked() uint64 {
	if o.Kind == LockAcquire {
		return 0
	}
	return o.Token
}

// plan chooses an operation; what depends on the state is chosen when it takes effect.
func (t *toy) plan(client, i int) *Operation {
	o := &Operation{Client: client, Repo: "r", Outcome: Done, Input: fmt.Sprintf("d%d-%d", client, i), Key: fmt.Sprintf("t%d", t.rng.IntN(toyTags))}
	switch n := t.rng.IntN(20); {
	case n < 6:
		o.Kind, o.Input = TagGet, ""
	case n < 8:
		o.Kind = TagPut
	case n < 9:
		o.Kind, o.Key = TagPut, "t0,t1"
	case n < 11:
		o.Kind, o.Expect = TagPut, "?"
	case n < 12:
		o.Kind, o.Input = TagDelete, ""
	case n < 14:
		o.Kind, o.Key = ManifestDelete, ""
	case n < 16:
		o.Kind, o.Key = ManifestGet, ""
	default:
		o.Kind = []Kind{LockAcquire, LockAcquire, LockRelease, LockRenew, GuardWrite, GuardWrite, GuardRead}[t.rng.IntN(7)]
		o.Repo, o.Key, o.TTL = "", "l", toyTTL
	}
	return o
}

// wrong tells whether a defect strikes.
func (t *toy) wrong(defect string) bool { return t.defect == defect && t.rng.IntN(2) == 0 }

func (t *toy) now(tag string) string {
	if h := t.tags[tag]; len(h) > 0 {
		return h[len(h)-1]
	}
	return ""
}

// some answers something that the tag was, what it is, or nothing that ever was.
func (t *toy) some(tag string) string {
	h := t.tags[tag]
	if len(h) == 0 || t.rng.IntN(8) == 0 {
		return "nowhere"
	}
	return h[max(0, len(h)-1-t.rng.IntN(3))]
}

func (t *toy) set(o *Operation, value string) {
	for tag := range strings.SplitSeq(o.Key, ",") {
		t.tags[tag] = append(t.tags[tag], value)
		if t.wrong("half of several") {
			return
		}
	}
}

func (t *toy) apply(o *Operation, at time.Duration) {
	refuse := func(status int, current string) { o.Outcome, o.Status, o.Output = Refused, status, current }
	switch o.Kind {
	case TagGet:
		o.Output = t.now(o.Key)
		if t.wrong("stale read") {
			o.Output = t.some(o.Key)
		}
	case TagPut:
		t.put(o, refuse)
	case TagDelete:
		if t.now(o.Key) == "" {
			refuse(404, "")
			return
		}
		t.set(o, "")
	case ManifestGet:
		o.Input = t.some(fmt.Sprintf("t%d", t.rng.IntN(toyTags)))
		if t.manifests[o.Input] || t.wrong("manifest comes back") {
			o.Output = o.Input
		}
	case ManifestDelete:
		t.deleteManifest(o, refuse)
	case LockAcquire, LockRenew, LockRelease:
		t.lock.apply(t, o, at, refuse)
	case GuardWrite, GuardRead:
		t.lock.guard(t, o, refuse)
	}
}

func (t *toy) put(o *Operation, refuse func(int, string)) {
	now := t.now(o.Key)
	if o.Expect == "?" {
		o.Expect = []string{now, now, "nowhere", Absent}[t.rng.IntN(4)]
		if o.Expect == "" {
			o.Expect = Absent
		}
		if !meets(now, o.Expect) && !t.wrong("condition ignored") {
			refuse(412, now)
			if !t.wrong("refused and done") {
				return
			}
		}
	}
	t.manifests[o.Input] = true
	if t.wrong("lost write") {
		return
	}
	t.set(o, o.Input)
	if first, _, _ := strings.Cut(o.Key, ","); t.wrong("late duplicate") && len(t.tags[first]) > 1 {
		if before := t.tags[first][len(t.tags[first])-2]; before != "" {
			t.set(o, before) // the write before came again
		}
	}
}

func (t *toy) deleteManifest(o *Operation, refuse func(int, string)) {
	o.Input = t.some(fmt.Sprintf("t%d", t.rng.IntN(toyTags)))
	if !t.manifests[o.Input] {
		refuse(404, "")
		return
	}
	t.manifests[o.Input] = false
	if t.wrong("tags stay") {
		return
	}
	for tag, h := range t.tags {
		if h[len(h)-1] == o.Input {
			t.tags[tag] = append(h, "")
		}
	}
}

func (l *toyLock) apply(t *toy, o *Operation, at time.Duration, refuse func(int, string)) {
	held := l.held && at < l.until
	switch {
	case o.Kind == LockAcquire && held && !t.wrong("two holders"):
		refuse(409, "")
		o.Token = 0
	case o.Kind == LockAcquire:
		if !t.wrong("token reuse") {
			l.token++
		}
		l.held, l.until, o.Token = true, at+o.TTL, l.token
		if o.Outcome == Done {
			l.told = append(l.told, l.token)
		}
	default:
		o.Token = l.recent(t, 4)
		holds := held && o.Token == l.token
		if !holds || t.wrong("holder refused") {
			refuse(409, "")
			return
		}
		l.until = at + o.TTL
		l.held = o.Kind == LockRenew
	}
}

// recent is a token that somebody got, the last one but for one in n.
func (l *toyLock) recent(t *toy, n int) uint64 {
	switch last := len(l.told) - 1; {
	case last < 0:
		return 1 << 40
	case last > 0 && t.rng.IntN(n) == 0:
		return l.told[last-1]
	default:
		return l.told[last]
	}
}

func (l *toyLock) guard(t *toy, o *Operation, refuse func(int, string)) {
	if o.Kind == GuardRead {
		o.Output, o.Token, o.Input = l.guardValue, l.guardToken, ""
		return
	}
	if o.Token = l.recent(t, 2); o.Token == 1<<40 {
		o.Token = 0 // before the first grant
	}
	if o.Token < l.guardToken && !t.wrong("lower token taken") {
		refuse(409, "")
		return
	}
	l.guardToken, l.guardValue = o.Token, o.Input
}

func TestWhatASimpleRegistryDoesPasses(t *testing.T) {
	for seed := range uint64(80) {
		ops := toyHistory(seed, 120, "")
		j := CheckLinear(ops, 10*time.Second)
		if len(j.Bad) > 0 {
			t.Errorf("seed %d: %d partitions: %s %s %s", seed, len(j.Bad), j.Bad[0].Name, j.Bad[0].Decision, strings.Join(j.Bad[0].Evidence, "\n"))
		}
	}
}

// TestSilenceIsDecided: while a leader is away all writes have unknown outcomes at once, which is what a search cannot
// have too many of.
func TestSilenceIsDecided(t *testing.T) {
	for seed := range uint64(3) {
		ops := toyStorm(seed, 12, 100, 20*time.Millisecond, "")
		unknown := 0
		for i := range ops {
			if ops[i].Outcome == Unknown {
				unknown++
			}
		}
		j := CheckLinear(ops, 20*time.Second)
		t.Logf("%d operations, %d of unknown outcome: %v", len(ops), unknown, j.Took)
		for _, p := range j.Bad {
			t.Errorf("seed %d: %s: %d operations: %s", seed, p.Name, p.Operations, p.Decision)
		}
	}
}

// TestWhatIsSettledChangesNoDecision searches short histories, good and bad, with and without all that makes a search
// short.
func TestWhatIsSettledChangesNoDecision(t *testing.T) {
	plainly := func(ops []*Operation) []settled { return settleBy(ops, func(*Operation) int { return needed }) }
	decisions := map[Decision]int{}
	for seed := range uint64(400) {
		defect := []string{"", "stale read", "late duplicate", "lost write", "tags stay", "half of several", "two holders", "token reuse", "lower token taken"}[seed%9]
		ops := toyStorm(seed, 4, 16, 3*time.Millisecond, defect)
		for _, p := range partitions(ops) {
			got := p.check(20 * time.Second).Decision
			short := *p
			short.settle, short.pin = plainly, nil
			want := short.check(20 * time.Second).Decision
			decisions[want]++
			if got != want {
				t.Errorf("seed %d, %q: %s is %s, plainly searched %s", seed, defect, p.name, got, want)
			}
		}
	}
	t.Log(decisions)
	if decisions[Undecided] > 0 || decisions[NotLinear] < 100 || decisions[Linear] < 1000 {
		t.Errorf("the comparison is worth little: %v", decisions)
	}
}

func TestWhatABrokenRegistryDoesIsFound(t *testing.T) {
	for defect, model := range map[string]string{
		"stale read":          "tags",
		"lost write":          "tags",
		"late duplicate":      "tags",
		"condition ignored":   "tags",
		"refused and done":    "tags",
		"half of several":     "tags",
		"tags stay":           "tags",
		"manifest comes back": "manifests",
		"token reuse":         "locks",
		"two holders":         "locks",
		"holder refused":      "locks",
		"lower token taken":   "locks",
	} {
		t.Run(defect, func(t *testing.T) {
			found, others := 0, 0
			const runs = 20
			for seed := range uint64(runs) {
				j := CheckLinear(toyHistory(seed, 120, defect), 30*time.Second)
				hit := false
				for _, p := range j.Bad {
					hit = hit || p.Decision == NotLinear && p.Model == model
					if p.Model != model {
						others++
					}
				}
				if hit {
					found++
				}
			}
			t.Logf("found in %d of %d histories", found, runs)
			if found < runs*9/10 {
				t.Errorf("found in %d of %d histories", found, runs)
			}
			if model != "tags" && others > 0 {
				t.Errorf("%d partitions of other models object", others)
			}
		})
	}
}

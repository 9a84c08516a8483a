package check

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	second = time.Second
	minute = time.Minute
)

// good is a run in which every rule has something to judge and nothing to object to.
func good() *Facts {
	pull := func(from int, node, digest, output string, stale bool) Operation {
		o := manifest(from, from+1, ManifestGet, digest, output, Done)
		o.Node, o.Class, o.Stale = node, PullByDigest, stale
		return o
	}
	at := func(o Operation, node string, revision uint64) Operation {
		o.Node, o.Revision = node, revision
		return o
	}
	blob := op(0, 1, BlobPut, Done)
	blob.Input, blob.Output = "l1", "l1"
	return &Facts{
		Operations: []Operation{
			blob,
			at(put(2, 3, "a", "x", "", Done), "n1", 10),
			at(put(4, 5, "b", "y", "", Done), "n2", 11),
			at(get(6, 7, "a", "x"), "n3", 11),
			at(manifest(8, 9, ManifestDelete, "y", "", Done), "n1", 12),
			at(refused(put(10, 11, "a", "z", Absent, ""), "x"), "n2", 0),
			pull(20, "n3", "x", "x", true),
			pull(22, "n3", "y", "y", true), // deleted, which n3 has not heard yet
			pull(24, "n3", "y", "", true),
			pull(26, "n1", "x", "x", false),
		},
		Images: []Image{{"r", "x", []string{"l1", "l2"}}},
		Nodes:  []string{"n1", "n2"},
		Contents: []Content{
			{"n1", "r", "x", "x", ""}, {"n1", "r", "l1", "l1", ""}, {"n1", "r", "l2", "l2", ""},
			{"n2", "r", "x", "x", ""}, {"n2", "r", "l1", "l1", ""}, {"n2", "r", "l2", "l2", ""},
		},
		Visible:    []Image{{"r", "x", []string{"l1", "l2"}}},
		Objects:    []Object{{"k1", "l1", 10 * minute}, {"k2", "l2", 10 * minute}, {"k3", "l3", second}},
		BucketRead: true,
		States: []State{{"n1", 1 * second, 5, "h5"}, {"n2", 2 * second, 5, "h5"}, {"n1", 3 * second, 9, "h9"}, {"n2", 4 * second, 9, "h9"},
			{"n1", 5 * second, 9, "h9"}, {"n3", 5 * second, 0, ""}},
		Leaders:    []Leader{{1, "n1"}, {1, "n1"}, {2, "n2"}},
		Effects:    []Effect{wrote("q1", "a", "x"), wrote("q2", "b", "y"), {Request: "q2", Kind: "push", Repo: "r", Digest: "y"}},
		Absences:   []Absence{{"n4", 30 * second, 60 * second}},
		Recoveries: []Recovery{{"n1", 2 * second, "", 0}},
		Before:     []Gauge{{"n1", "goroutines", 100}},
		After:      []Gauge{{"n1", "goroutines", 140}, {"n1", "threads", 9000}},
		Losses:     []Loss{{15 * time.Millisecond, 26 * time.Millisecond, []string{"n3"}}},
		Bounds:     Bounds{Leak: 5 * minute, Stale: minute, Bands: map[string]Band{"goroutines": {1.2, 20}}},
	}
}

func wrote(request, tag, digest string) Effect {
	return Effect{Request: request, Kind: TagPut, Repo: "r", Tag: tag, Digest: digest}
}

func removedWrite(outcome Outcome) Operation {
	o := put(40_000, 40_001, "c", "w", "", outcome)
	o.Node, o.Class = "n4", WriteTag
	return o
}

func TestEachRuleFindsWhatBreaksItAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*Facts)
		rules string // that object
	}{
		{"good", func(*Facts) {}, ""},
		{"a node misses a manifest", func(f *Facts) { f.Contents[0].Bytes = "" }, "I1"},
		{"a node misses a layer", func(f *Facts) { f.Contents[5].Bytes = "" }, "I1"},
		{"a node serves other bytes", func(f *Facts) { f.Contents[2].Bytes = "l9" }, "I1"},
		{"a node fails", func(f *Facts) { f.Contents[3].Error = "503" }, "I1"},
		{"nobody asked a node", func(f *Facts) { f.Contents = f.Contents[:5] }, "I1"},
		{"what was held before is asked for too", func(f *Facts) { f.Held = []Held{{"q", "v"}} }, "I1"},
		{"a deletion of unknown outcome excuses", func(f *Facts) {
			f.Operations = append(f.Operations, manifest(30, 31, ManifestDelete, "x", "", Unknown))
			f.Contents[0].Bytes = ""
		}, ""},
		{"a push after the deletion does not", func(f *Facts) {
			f.Operations = append(f.Operations, manifest(30, 31, ManifestDelete, "x", "", Done), put(32, 33, "c", "x", "", Done))
			f.Effects = append(f.Effects, wrote("q3", "c", "x"))
			f.Contents[0].Bytes = ""
		}, "I1"},
		{"a refused deletion does not", func(f *Facts) {
			f.Operations = append(f.Operations, missing(manifest(30, 31, ManifestDelete, "x", "", "")))
			f.Contents[0].Bytes = ""
		}, "I1"},

		{"a layer is gone from the bucket", func(f *Facts) { f.Objects = f.Objects[1:] }, "I2"},
		{"the bucket is empty", func(f *Facts) { f.Objects = nil }, "I2"},
		{"nobody read the bucket", func(f *Facts) { f.Objects, f.BucketRead = nil, false }, ""},
		{"a layer has other bytes in the bucket", func(f *Facts) { f.Objects[0].Digest, f.Objects[0].Idle = "l9", second }, "I2"},

		{"a manifest came with other bytes", func(f *Facts) { f.Operations[9].Output = "q" }, "I3"},
		{"a tag names another digest than its bytes have", func(f *Facts) { f.Operations[3].Input = "q" }, "I3"},
		{"spoilt bytes were taken", func(f *Facts) { f.Operations[0].Output = "q" }, "I3"},
		{"a layer came with other bytes", func(f *Facts) {
			o := op(12, 13, BlobGet, Done)
			o.Input, o.Output = "l1", "q"
			f.Operations = append(f.Operations, o)
		}, "I3"},
		{"a manifest was taken for another", func(f *Facts) { f.Operations = append(f.Operations, manifest(12, 13, ManifestPut, "x", "q", Done)) }, "I3"},
		{"a tag was written to another manifest, the answer says", func(f *Facts) { f.Operations[1].Output = "q" }, "I3"},
		{"a manifest was taken for what it is", func(f *Facts) { f.Operations[1].Output = "x" }, ""},
		{"spoilt bytes were refused", func(f *Facts) { f.Operations[0].Output, f.Operations[0].Outcome = "q", Refused }, ""},

		{"a layer stays", func(f *Facts) { f.Objects[2].Idle = 6 * minute }, "I4"},
		{"a layer lies there twice", func(f *Facts) { f.Objects = append(f.Objects, Object{"k4", "l1", 6 * minute}) }, "I4"},
		{"an old key of what lies there anew", func(f *Facts) { f.Objects = append(f.Objects, Object{"k4", "l1", second}) }, "I4"},

		{"states differ", func(f *Facts) { f.States[3].Hash = "h0" }, "I5"},
		{"a state differs from itself", func(f *Facts) { f.States[4].Hash = "h0" }, "I5"},
		{"a state without a hash", func(f *Facts) { f.States = append(f.States, State{"n4", 6 * second, 9, ""}) }, ""},
		{"a state that was told late goes back", func(f *Facts) {
			f.States[2], f.States[4] = State{"n1", 5 * second, 8, "h8"}, State{"n1", 3 * second, 9, "h9"}
		}, "I6 nodes"},
		{"a state goes back", func(f *Facts) { f.States[4] = State{"n1", 5 * second, 8, "h8"} }, "I6 nodes"},
		{"answers go back", func(f *Facts) { f.Operations[3].Revision = 10 }, "I6 answers"},
		{"an answer goes back behind one before the last", func(f *Facts) {
			f.Operations[1].Revision, f.Operations[2].Revision = 11, 10 // the write of b may have ended first
			f.Operations[1].Call, f.Operations[1].Return = f.Operations[2].Call, f.Operations[2].Call
			f.Operations[3].Revision = 10
		}, "I6 answers"},
		{"a stale answer is of an older state", func(f *Facts) { f.Operations[9].Revision, f.Operations[9].Stale = 3, true }, ""},
		{"a refusal is of an older state", func(f *Facts) { f.Operations[5].Revision = 3 }, ""},
		{"answers at once may differ", func(f *Facts) { f.Operations[3].Revision, f.Operations[3].Call = 10, f.Operations[2].Return }, ""},

		{"a tag was answered stale", func(f *Facts) { f.Operations[3].Stale = true }, "I7"},
		{"stale content that never was", func(f *Facts) { f.Operations[6].Input, f.Operations[6].Output = "v", "v" }, "I7"},
		{"stale content older than the bound", func(f *Facts) { f.Bounds.Stale = time.Millisecond }, "I7"},
		{"stale absence of what was there all the time", func(f *Facts) {
			f.Bounds.Stale = 5 * time.Millisecond
			f.Operations[7].Input, f.Operations[7].Output = "x", ""
		}, "I7"},
		{"stale content before its push", func(f *Facts) {
			f.Operations[6].Input, f.Operations[6].Output = "v", "v"
			f.Operations = append(f.Operations, put(30, 31, "c", "v", "", Unknown))
		}, "I7"},
		{"stale content that was refused", func(f *Facts) {
			f.Operations[6].Input, f.Operations[6].Output = "v", "v"
			f.Operations = append(f.Operations, put(10, 11, "c", "v", "", Refused))
		}, "I7"},
		{"stale content whose deletion may not have been", func(f *Facts) {
			f.Operations[4].Outcome, f.Bounds.Stale = Unknown, time.Millisecond
		}, ""},
		{"stale content that was pushed again", func(f *Facts) {
			f.Bounds.Stale = time.Millisecond
			f.Operations = append(f.Operations, put(10, 11, "b", "y", "", Unknown))
		}, ""},
		{"stale absence of what was pushed after its deletion", func(f *Facts) {
			f.Bounds.Stale = time.Millisecond
			f.Operations = append(f.Operations, put(10, 11, "b", "y", "", Done))
			f.Contents = append(f.Contents, Content{"n1", "r", "y", "y", ""}, Content{"n2", "r", "y", "y", ""})
		}, "I7"},
		{"stale absence of what perhaps never was", func(f *Facts) {
			f.Bounds.Stale = time.Millisecond
			f.Operations[7].Input, f.Operations[7].Output = "v", ""
			f.Operations = append(f.Operations, put(10, 11, "c", "v", "", Unknown))
		}, ""},
		{"stale content more than an hour after its deletion, where nothing says how old it may be", func(f *Facts) {
			f.Bounds.Stale = 0
			f.Operations[7].Call, f.Operations[7].Return = 61*minute, 61*minute
		}, "I7"},

		{"stale absence of what was pushed a moment ago", func(f *Facts) { f.Operations[7].Input, f.Operations[7].Output = "x", "" }, ""},
		{"stale absence of what was deleted afterwards", func(f *Facts) {
			f.Bounds.Stale = 5 * time.Millisecond
			f.Operations[7].Input, f.Operations[7].Output = "x", ""
			f.Operations = append(f.Operations, manifest(30, 31, ManifestDelete, "x", "", Done))
		}, "I7"},

		{"two leaders of a term", func(f *Facts) { f.Leaders[1].Node = "n3" }, "I8"},

		{"two effects", func(f *Facts) { f.Effects = append(f.Effects, wrote("q3", "a", "x")) }, "I9 writes"},
		{"two effects of an unknown write", func(f *Facts) {
			f.Operations[1].Outcome = Unknown
			f.Effects = append(f.Effects, wrote("q3", "a", "x"))
		}, "I9 writes"},
		{"two effects of one request", func(f *Facts) { f.Effects = append(f.Effects, f.Effects[2]) }, "I9 requests"},
		{"two effects that nobody asked for", func(f *Facts) {
			f.Effects = append(f.Effects, Effect{Kind: "release", Subject: "l"}, Effect{Kind: "release", Subject: "l"})
		}, ""},
		{"the first effect was trimmed", func(f *Facts) { f.Effects, f.EffectsTrimmed = f.Effects[1:], true }, ""},
		{"the first was trimmed, a later one is not there", func(f *Facts) {
			f.Effects, f.EffectsTrimmed = f.Effects[1:], true
			f.Operations = append(f.Operations, put(30, 31, "c", "x", "", Done))
		}, "I9 writes"},
		{"trimmed, one was written while the oldest that is kept was", func(f *Facts) {
			f.Effects, f.EffectsTrimmed = f.Effects[1:], true
			f.Operations[2].Return = 8 * time.Millisecond
			f.Operations = append(f.Operations, put(6, 7, "c", "x", "", Done), put(8, 9, "d", "x", "", Done))
		}, ""},
		{"trimmed, nobody knows when the oldest that is kept was written", func(f *Facts) {
			f.Effects, f.EffectsTrimmed = []Effect{wrote("q0", "c", "x"), f.Effects[1]}, true
			f.Operations = append(f.Operations, put(0, 1, "c", "x", "", Unknown))
		}, ""},
		{"no effect", func(f *Facts) { f.Effects = f.Effects[1:] }, "I9 writes"},
		{"a refusal with an effect", func(f *Facts) { f.Effects = append(f.Effects, wrote("q3", "a", "z")) }, "I9 writes"},
		{"unknown, with an effect", func(f *Facts) { f.Operations[1].Outcome = Unknown }, ""},
		{"unknown, without an effect", func(f *Facts) { f.Operations[1].Outcome, f.Effects = Unknown, f.Effects[1:] }, ""},
		{"two writes of one digest", func(f *Facts) {
			f.Operations = append(f.Operations, put(12, 13, "a", "x", "", Done))
			f.Effects = append(f.Effects, wrote("q3", "a", "x"))
		}, ""},
		{"several tags, one without an effect", func(f *Facts) { f.Operations[1].Key = "a,c" }, "I9 writes"},

		{"a removed node writes", func(f *Facts) {
			f.Operations = append(f.Operations, removedWrite(Done))
			f.Effects = append(f.Effects, wrote("q3", "c", "w"))
			f.Contents = append(f.Contents, Content{"n1", "r", "w", "w", ""}, Content{"n2", "r", "w", "w", ""})
		}, "I10"},
		{"a node writes that was removed and never came back", func(f *Facts) {
			f.Absences[0].Until = 0
			f.Operations = append(f.Operations, removedWrite(Done))
			f.Effects = append(f.Effects, wrote("q3", "c", "w"))
			f.Contents = append(f.Contents, Content{"n1", "r", "w", "w", ""}, Content{"n2", "r", "w", "w", ""})
		}, "I10"},
		{"a removed node answers a write once it is back", func(f *Facts) {
			f.Absences[0].Until = 40*second + time.Millisecond/2
			f.Operations = append(f.Operations, removedWrite(Done))
			f.Effects = append(f.Effects, wrote("q3", "c", "w"))
			f.Contents = append(f.Contents, Content{"n1", "r", "w", "w", ""}, Content{"n2", "r", "w", "w", ""})
		}, "I10"},
		{"another node writes meanwhile", func(f *Facts) {
			o := removedWrite(Done)
			o.Node = "n1"
			f.Operations = append(f.Operations, o)
			f.Effects = append(f.Effects, wrote("q3", "c", "w"))
			f.Contents = append(f.Contents, Content{"n1", "r", "w", "w", ""}, Content{"n2", "r", "w", "w", ""})
		}, ""},
		{"a removed node answers a read", func(f *Facts) {
			o := manifest(40_000, 40_001, ManifestGet, "x", "x", Done)
			o.Node, o.Class = "n4", PullByDigest
			f.Operations = append(f.Operations, o)
		}, ""},
		{"a removed node refuses", func(f *Facts) { f.Operations = append(f.Operations, removedWrite(Refused)) }, ""},
		{"a node writes before it is removed", func(f *Facts) {
			o := removedWrite(Refused)
			o.Call, o.Return, o.Outcome, o.Input = 20*second, 21*second, Done, "x"
			f.Operations = append(f.Operations, o)
			f.Effects = append(f.Effects, wrote("q3", "c", "x"))
		}, ""},
		{"a node writes when it is back", func(f *Facts) {
			f.Operations = append(f.Operations, removedWrite(Done))
			f.Effects = append(f.Effects, wrote("q3", "c", "w"))
			f.Contents = append(f.Contents, Content{"n1", "r", "w", "w", ""}, Content{"n2", "r", "w", "w", ""})
			f.Absences[0].Until = 35 * second
		}, ""},

		{"a node heals late", func(f *Facts) { f.Recoveries[0].Healthy = 11 * second }, "I11"},
		{"a node does not write", func(f *Facts) { f.Recoveries[0].Write = "503" }, "I11"},
		{"a node lags", func(f *Facts) { f.Recoveries[0].Lag = 1 }, "I11"},

		{"goroutines stay", func(f *Facts) { f.After[0].Value = 141 }, "I12"},
		{"goroutines of a new node", func(f *Facts) { f.After[0] = Gauge{"n9", "goroutines", 21} }, "I12"},

		{"a live node fails without a quorum", func(f *Facts) { f.Operations[6].Outcome = Unknown }, "I13"},
		{"a live node refuses without a quorum", func(f *Facts) { f.Operations[6].Outcome, f.Operations[6].Status = Refused, 403 }, "I13"},
		{"a live node fails before the quorum is lost", func(f *Facts) {
			o := manifest(14, 16, ManifestGet, "x", "", Unknown)
			o.Node, o.Class = "n3", PullByDigest
			f.Operations = append(f.Operations, o)
		}, ""},
		{"a live node takes no write without a quorum", func(f *Facts) {
			o := put(20, 21, "c", "v", "", Unknown)
			o.Node, o.Class = "n3", WriteTag
			f.Operations = append(f.Operations, o)
		}, ""},
		{"a dead node fails without a quorum", func(f *Facts) { f.Operations[6].Outcome, f.Operations[6].Node = Unknown, "n1" }, ""},
		{"a node fails when the quorum is back", func(f *Facts) { f.Operations[9].Outcome, f.Operations[9].Node = Unknown, "n3" }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			facts := good()
			c.spoil(facts)
			facts.Writes = facts.Operations
			var objecting []string
			for _, f := range CheckInvariants(facts) {
				for _, v := range f.Violations {
					t.Log(v, v.Evidence)
				}
				if len(f.Violations) > 0 {
					objecting = append(objecting, f.Rule)
				}
			}
			if got := strings.Join(objecting, " "); got != c.rules {
				t.Errorf("objects: %q, want %q", got, c.rules)
			}
		})
	}
}

func TestEveryRuleHasSomethingToJudgeInAGoodRun(t *testing.T) {
	facts := good()
	facts.Operations = append(facts.Operations, removedWrite(Refused))
	facts.Writes = facts.Operations
	for _, f := range CheckInvariants(facts) {
		if f.Judged == 0 {
			t.Errorf("%s judged nothing", f.Rule)
		}
	}
	for _, f := range CheckInvariants(&Facts{}) {
		if f.Judged != 0 || len(f.Violations) != 0 {
			t.Errorf("%s judged %d of nothing", f.Rule, f.Judged)
		}
	}
}

// TestOneNodeAloneAgreesWithNobody: I5 has judged an index when two nodes have told of it, and a node goes back from the
// highest that it was at, however often it is looked at there.
func TestOneNodeAloneAgreesWithNobody(t *testing.T) {
	alone := []State{{"n1", 1 * second, 9, "h9"}, {"n1", 2 * second, 9, "h9"}, {"n1", 3 * second, 8, "h8"}, {"n1", 4 * second, 8, "h8"}}
	if f := statesAgree(alone); f.Judged != 0 {
		t.Errorf("one node alone: %d judged", f.Judged)
	}
	if f := stateNeverGoesBack(alone); f.Broken != 2 {
		t.Errorf("two looks below 9: %d broken", f.Broken)
	}
}

// TestOnlyWhatARemovedNodeAnswersIsJudged: a request that found that the node has ended says nothing about I10.
func TestOnlyWhatARemovedNodeAnswersIsJudged(t *testing.T) {
	answered, unheard := removedWrite(Unknown), removedWrite(Unknown)
	answered.Status = 503
	f := removedTakesNoWrites([]Operation{answered, unheard}, []Absence{{"n4", 30 * second, 0}})
	if f.Judged != 1 || f.Broken != 0 {
		t.Errorf("of one that was answered and one that was not, %d were judged, %d broken", f.Judged, f.Broken)
	}
}

func TestFindingsOfPartsAreJoinedByRule(t *testing.T) {
	bad, fine := good(), good()
	bad.Leaders[1].Node = "n3"
	var all []Finding
	for range 150 {
		all = JoinFindings(all, CheckInvariants(bad))
	}
	all = JoinFindings(all, CheckInvariants(fine))
	i := slices.IndexFunc(all, func(f Finding) bool { return f.Rule == "I8" })
	if all[i].Broken != 150 || len(all[i].Violations) != maxViolations || all[i].Judged != 151*2 || len(all) != 15 {
		t.Errorf("%d rules; I8 broken %d, kept %d, judged %d", len(all), all[i].Broken, len(all[i].Violations), all[i].Judged)
	}
}

package check

import "time"

// Facts are what a run saw beside its operations. What is left empty is not judged.
type Facts struct {
	Operations []Operation
	// Held are the manifests that must be there (HeldBy of operations that are not in Operations any more).
	Held []Held
	// Images say what each pushed manifest names.
	Images []Image
	// Nodes are those that must serve all that is held; Contents are their answers at the end.
	Nodes    []string
	Contents []Content
	// Visible are the images that a client can name at the end; Objects are the layers in the bucket, at the same time.
	// BucketRead says that Objects is all of it, so that an empty one is an empty bucket.
	Visible    []Image
	Objects    []Object
	BucketRead bool
	States     []State
	Leaders    []Leader
	// Writes are all operations of the kind TagPut, those too that are not in Operations any more.
	Writes []Operation
	// Effects are the ledger's events in their order; EffectsTrimmed says that the oldest are not there any more.
	Effects        []Effect
	EffectsTrimmed bool
	Absences       []Absence
	Recoveries     []Recovery
	Before         []Gauge
	After          []Gauge
	Losses         []Loss
	Bounds         Bounds
}

// Bounds are the times and sizes that rules allow.
type Bounds struct {
	// Stale is the oldest state that an answer with a Warning may be made of (cluster.reads.offline). Default 1 h.
	Stale time.Duration
	// Leak is how long a layer that nothing needs may stay in the bucket: grace, delay and a few cycles. 0 judges nothing.
	Leak time.Duration
	// Heal is how long after the last fault a node may be unhealthy. Default 10 s.
	Heal time.Duration
	// Bands say how far a gauge may be from what it was, by name.
	Bands map[string]Band
}

// Band is what a gauge may rise to: Factor times what it was, and More.
type Band struct{ Factor, More float64 }

// Held is a manifest whose push was answered and whose deletion nobody asked for.
type Held struct{ Repo, Digest string }

// Image is a manifest with the digests that it names.
type Image struct {
	Repo, Digest string
	Blobs        []string
}

// Content is a node's answer for a digest: Bytes is the digest of what came, "" is "not there".
type Content struct {
	Node, Repo, Digest string
	Bytes              string
	Error              string
}

// Object is what lies under a key of the bucket: Digest is of its bytes. Idle is how long it is certain that nothing has
// needed it, if nothing does: since the last request that may have needed or freed it, not since it was written.
type Object struct {
	Key, Digest string
	Idle        time.Duration
}

// State is what a ready node says of its state. Node is its identity: a wiped node is another one.
type State struct {
	Node  string
	At    time.Duration
	Index uint64
	Hash  string // "" is not told
}

// Leader is a node that opened a term.
type Leader struct {
	Term uint64
	Node string
}

// Effect is what the ledger's events tell of a change.
type Effect struct {
	Request string // "" is a change that no request asked for
	Kind    Kind   // TagPut, or what the ledger calls it
	Repo    string // "" with what is of no repository
	Tag     string
	Digest  string // what came, or what was removed
	Subject string // of what is no content: a lock
}

// Absence is the time that a node was no member: from the answer to its removal until it was asked to join again.
type Absence struct {
	Node        string
	From, Until time.Duration
}

// Recovery is a node after the last fault: how long until it was healthy, what a write through it gave, how many
// entries its state lacked in the end.
type Recovery struct {
	Node    string
	Healthy time.Duration
	Write   string // the error, "" is none
	Lag     uint64
}

// Gauge is a number of a node, in peace.
type Gauge struct {
	Node, Name string
	Value      float64
}

// Loss is a time without a quorum, with the nodes that lived through it.
type Loss struct {
	From, Until time.Duration
	Live        []string
}

// CheckInvariants judges every rule. The rules and their numbers are those of the plan of the suite.
func CheckInvariants(f *Facts) []Finding {
	bounds := f.Bounds
	if bounds.Stale == 0 {
		bounds.Stale = time.Hour
	}
	if bounds.Heal == 0 {
		bounds.Heal = 10 * time.Second
	}
	return []Finding{
		everyNodeServes(f),
		layersExist(f),
		bytesMatch(f.Operations),
		nothingLeaks(f, bounds.Leak),
		statesAgree(f.States),
		stateNeverGoesBack(f.States),
		answersNeverGoBack(f.Operations),
		staleIsBounded(f.Operations, bounds.Stale),
		oneLeader(f.Leaders),
		oneEffect(f),
		writesTakeEffect(f),
		removedTakesNoWrites(f.Operations, f.Absences),
		heals(f.Recoveries, bounds.Heal),
		returnsToBand(f.Before, f.After, bounds.Bands),
		servesWithoutQuorum(f.Operations, f.Losses),
	}
}

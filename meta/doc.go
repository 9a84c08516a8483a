// Package meta is what is true: the replicated state of a Pontoon cluster, the
// rules by which a command changes it, and the views that read it. It is the
// first waist of Pontoon: everything that is true goes through Ledger.
//
// DESIGN.md beside this file says why it is as it is; keys.go has the format.
//
// # What it promises
//
//	M1  Apply is a pure function of (state, log entry): no clock, randomness,
//	    network, log or goroutine. Durations are cluster time, in nanoseconds.
//	M2  A refusal is a result, equal on every node. A failure of the store, or an
//	    entry or command of a kind that this release does not know, is an error
//	    that must stop the node. A panic in a command is the result
//	    KIND_INTERNAL, a defect row, and State.Panics.
//	M3  A command is applied whole or not at all, and sees the commands before it.
//	M4  A manifest is in a repository only if everything that it names was live
//	    there at that index, unless the settings allow sparse ones; what a sparse one
//	    names without being live grants nothing.
//	M5  A command with an origin takes effect once, however often it arrives.
//	M6  A tag write or delete may carry a precondition.
//	M7  Keys, rows, entries and exports are versioned; testdata holds an old log
//	    that must replay to the same hash.
//	M9  The hash of the state is the same on all nodes at the same index.
//	G1  An upload is known before its bytes exist.
//	G2  A commit needs its upload open at the revision that the caller saw.
//	G3  What a view found to be unneeded or untagged is decided again when it is to go.
//	G4  is M4.
//	G5  A storage key is never given to a second upload or digest.
//	G6  A condemned key is due only once its delay is over and no backup reaches back to its
//	    condemnation; the row of one that is not due is not forgotten. Who deletes keys asks
//	    View.Condemned.
//	G8  What was confirmed to a pusher stays live for the grace from then, or from the last
//	    renewal, which is at most a quarter of it old.
//	B6  Each step of an upload adds only what its own attempt wrote, under part
//	    numbers and keys that nobody else can have used.
//	B7  A lost blob is answered as absent, and healed by the next push.
//	C4  A fencing token is granted once.
//
// # What it does not promise
//
//	N1  Durability. The store's log is not synced by Apply; after a power cut the
//	    state is a prefix, and the Raft log brings it back.
//	N2  That it checks grammar. Names, manifests and digests of bodies are judged at the
//	    door (ParseRepository, ParseManifest); Apply checks bounds and what safety needs.
//	N3  That bytes are where a row says. It never sees the store of layers: G7 and G9 are kept by
//	    who does (cluster/gc), from what Objects, Condemned and System say.
//	N4  Who may do what: that is judged at the door too.
//	N5  A bound on one command's cost by the number of manifests that name one
//	    absent blob, of tags that name one deleted manifest, or of repositories that one
//	    unneeded blob was pushed to: all are changed in one step.
package meta

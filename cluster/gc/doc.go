// Package gc forgets: it finds what nothing needs, condemns it in the ledger, and deletes it from the store once it is
// due, while pushes and pulls go on. It is the leader's duty; Plan is the dry run of the same code, and Verify an
// independent recomputation of who needs what.
//
// DESIGN.md beside this file says how, and what each decision costs.
//
// # What it promises
//
//	C3  Two collectors may act at once, such as one of a leader who does not know that it is none: every effect is a
//	    command that Apply decides again, or a delete of a key that nobody can use again.
//	G3  It condemns nothing itself: blobs and untagged manifests are decided again in Apply.
//	G6  A condemned key is deleted only when no backup can need it and its delay is over, by one view of the ledger.
//	G7  Of names that the ledger does not know it deletes only those that were listed before the view began, are older
//	    than 24 h by the store's date, and are of this cluster's epoch, or of one that an operator gave up.
//	G9  Nothing is deleted before the owner mark has proved the store ours, and said how far it is swept.
//	    It goes on after the loss of a leader at any point; what was done is counted once.
//
// # What it does not promise
//
//	That a cycle frees everything: what is kept by grace, delay or a backup goes in a later one, and so does what the
//	    store refuses to let go. Cycle.kept and Cycle.trouble say how much, and why.
//	That counts of orphans and aborted multipart uploads are complete after the loss of a leader: no row remembers them.
//	That a wrong wall clock is noticed: the age of orphans is judged by it. The ledger's word (G1, G7) does not depend on it.
package gc

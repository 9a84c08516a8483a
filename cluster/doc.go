// Package cluster decides who agrees: it makes several nodes one registry by
// replicating commands through Raft into meta.State, and implements
// meta.Ledger on every one of them.
//
// # What is promised
//
//   - C1: an acknowledged write survives the loss of any minority of the voters,
//     kill -9 and power cuts included. Raft's log is synced before a node
//     acknowledges; the state is a prefix of it.
//   - C2: after Propose returns on a node, the next View there contains it; a
//     View on any node contains everything acknowledged anywhere before it
//     began. Fallbacks of meta.Read.Content are excepted, and marked by View.Stale.
//   - C3: two leaders never act. Every effect of a Duty is a proposal that Apply
//     decides again. Leadership is acted on only after the term-opening
//     command is applied, and the duty's context ends with it.
//   - C4: a lock grants a fencing token (the log index of the grant) and a context
//     that dies with it: at the monotonic instant before the last successful
//     renewal was sent, plus the ttl.
//
// # What is not promised
//
//   - Progress without a majority of the voters. Writes answer KIND_UNAVAILABLE
//     after Config.Hold, reads too unless a fallback was allowed.
//   - That a lock alone excludes anybody: a paused holder wakes up believing. Whatever
//     it guards must carry the token and refuse a stale one.
//   - An outcome for every write: when a connection or a leader dies at the wrong
//     moment and the retries run out of time, the answer is
//     KIND_OUTCOME_UNKNOWN, and the command may or may not have taken effect.
//   - That a node which missed more than half of Config.LogBytes catches up from the log:
//     it is sent the whole state. The log itself is bounded by LogBytes, and overshoots
//     it by what is written while it is compacted.
//   - That a damaged row is found which no command reads: nodes compare what commands wrote (M9).
//   - Protection from a peer that holds the cluster secret and lies.
//
// DESIGN.md beside this file says how, and what each decision costs.
package cluster

// Package check judges what clients of a registry saw while faults ran: a pure function of a recorded history and of
// observations, which anybody can repeat from the files of a run.
//
// What it promises:
//
//  1. A history is all that was called, also what was never answered. When it had no room for an operation, it says so,
//     and the run is void: a checker that misses a write accuses the innocent, one that misses a read sees nothing.
//  2. What is not certain stays open. An operation of unknown outcome may take effect at any time after its call, or
//     never; only an answer that certainly tells of no effect counts as refused (Judge).
//  3. "Not decided in time" is never a pass.
//  4. A violation names its rule and carries its evidence.
//
// What it does not: it measures nothing and talks to nobody; it believes the clock of the recorder, one monotonic clock
// for all clients. It imports nothing of ours, so that a mistake there is not repeated here.
package check

// Package chaos runs the built binary as its users do and tries to lose their data: real processes, a real S3 server,
// HAProxy, real clients, and faults.
//
// What it promises:
//
//  1. It touches only the binary, HTTP and storage, and imports nothing of the product: what passes here passes for a stranger.
//  2. What a test calls lost was acknowledged by an answer that the test itself received.
//  3. Everything it starts, it ends, also when a test fails; logs of a failed test are kept and named.
//  4. Everything listens on loopback, on ports that were free a moment before, or in network namespaces that a test made.
//
// What it does not: it runs on Linux (it stops processes by signal and reads /proc), it needs versitygw, haproxy,
// skopeo, crane, podman and mmdebstrap on PATH and fails without them (with -long also docker, containerd, buildah, regctl,
// helm and cosign, and root), and its figures hold for one machine that runs the
// servers and their clients alike.
//
// Besides the binary that users get it runs one with the tag faults, which does harm to itself when points (points_test.go)
// tell it to: it holds a request between two calls of the store, ends between a write of the log and the answer, tells another
// time. cmd/pontoon/faults.go says what there is; TestAReleaseHasNoFaults looks that none of it is in the binary under test.
//
// # TestChaos
//
// TestChaos (make chaos) runs three voters and a node without a vote behind HAProxy, over one S3 server. Lines of package
// proxy lie between every two nodes and before the store, and the binary is built with the tag faults. A plan, a function of
// -chaos.seed alone, draws storms of one fault or of two that overlap; each is healed, then everything must work again soon
// (I11), and is left alone for a moment. The same seed gives the same kinds, targets, pauses and order; what the cluster does
// meanwhile is its own.
//
//	plan ─► nemesis ─► nodes, lines, store          faults(): what there is, each with what it does and what undoes it
//	guests ─► HAProxy or any node ─► history        no client is sticky; each request is recorded, done, refused or unknown
//	watcher ─► every node                           states, terms, panics, an answer by digest twice a second
//	seasons ─► chaos/check                          tags, sets and locks live for 12 s, are judged, and their garbage collected
//
// Meanwhile garbage is collected with seconds of grace and backups are taken. At the end all nodes hold the same, the ledger's
// events tell one effect of each request (I9), every image that was acknowledged and not deleted comes byte for byte from each
// of them and from a restored backup, and the bucket comes to hold what those need and nothing else. The last line of the
// binary is the verdict: PASS, FAIL, or VOID where too little was tried to say either, or the harness gave up. A node that ends
// by itself, by a panic, otherwise than it should, or not at all, is a violation; one that is not ready again within a minute of
// its start or never agrees with the others is a failed harness, so read why a run is void. The line names as unobserved the rules of which
// nothing was seen, such as I10 where no node was removed while it ran, as the fault remove does. What a run leaves is in one
// folder, which the first line names: history.jsonl, report.html, the logs and disks of the nodes. RECORD.md tells what was
// found.
//
// Some tests are too long for every change, or run shorter there. They are asked for by flags of the test binary, which the
// Makefile sets: -long (make e2e, make drill), -cycles and -seed (make churn), -conformance and -restarting (make conformance),
// -figures (make bench), -million (make bench-million), -chaos.duration, -chaos.seed, -chaos.faults,
// -chaos.balanced and -chaos.dir (make chaos).
// -chaos.previous names an earlier build, from which TestNodesAreUpgradedAndRollBack upgrades and to which it rolls back; the
// faults of TestChaos cannot hold it, since that build takes no commands and another command version founded the cluster. Power cuts
// and full disks need root and loop devices; where they are not, that is said and the rest is run.
package chaos

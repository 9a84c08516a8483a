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
// Some tests are too long for every change, or run shorter there. They are asked for by flags of the test binary, which the
// Makefile sets: -long (make e2e, make drill), -cycles and -seed (make churn), -conformance and -restarting (make conformance),
// -figures (make bench), -million (make bench-million).
package chaos

package main

import "runtime/debug"

const (
	// collectAt lets the heap grow to five times what lives in it before it is
	// collected. What lives is small on a node (tens of MiB), so the default of twice
	// collects many times a second under load: a third of all manifest reads went into that.
	collectAt = 400
	// heapRoom is what a node needs beside the buffers of uploads, in bytes, and heapLeast the least limit set.
	heapRoom  = 128 << 20
	heapLeast = 384 << 20
)

// tuneCollector sets the garbage collector for a registry: seldom while little
// memory is in use, and more often towards the soft limit that the upload buffers imply. Who
// sets GOGC or GOMEMLIMIT knows better.
func tuneCollector(getenv func(string) string, uploads int64) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(max(uploads+heapRoom, heapLeast))
	}
}

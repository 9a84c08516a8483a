package main

import (
	"runtime"
	"runtime/debug"
)

const (
	// ballast is memory that is reserved and never touched, in bytes, so that it costs no
	// pages. It counts as living, so the collector lets this much more be made between two
	// collections. What really lives on a node is small (20 MiB): without it the heap
	// is collected many times a second under load, which took a third of all manifest reads.
	ballast = 64 << 20
	// heapRoom is what a node needs beside ballast and the buffers of uploads, in bytes; the cache of the state is part of it.
	heapRoom = 144 << 20
)

// tuneCollector sets the garbage collector for a registry whose uploads may hold
// so many bytes: seldom while little is in use, more often towards the soft limit that
// follows from them. Who sets GOGC or GOMEMLIMIT knows better. Call the answer at the end.
func tuneCollector(getenv func(string) string, uploads int64) (release func()) {
	var held []byte
	if getenv("GOGC") == "" {
		held = make([]byte, ballast)
	}
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(uploads + heapRoom + int64(len(held)))
	}
	return func() { runtime.KeepAlive(held) }
}

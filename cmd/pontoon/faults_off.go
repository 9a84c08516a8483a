//go:build !faults

package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/meta"
)

// faults stands between a node and its world where tests break things (faults.go, tag faults). In a release it is nothing:
// every method answers what it was given. TestAReleaseHasNoFaults looks.
type faults struct{}

func openFaults(context.Context, host, *slog.Logger) (*faults, error) { return nil, nil }

func (*faults) close() error { return nil }

func (*faults) seams() cluster.Seams { return cluster.Seams{} }

// now is nil: each package takes the real clock then.
func (*faults) now() func() time.Time { return nil }

func (*faults) store(_ string, s blobs.Store) blobs.Store { return s }

func (*faults) objects(o blobs.Objects) blobs.Objects { return o }

func (*faults) archive(a blobs.Archive) blobs.Archive { return a }

func (*faults) ledger(l meta.Ledger) meta.Ledger { return l }

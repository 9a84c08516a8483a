package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"

	"github.com/pontoon-registry/pontoon/blobs"
)

// markName is where the owner mark is, outside every epoch's prefix. It never changes: two releases must find the same mark.
const markName = "pontoon-owner.json"

// ownerMark is cluster.Mark over blobs.Objects: whose bucket this is (G9). It is
// changed by conditional writes only, so of two clusters one gets it. What it says
// is read anew wherever something depends on it; nothing of it is kept.
type ownerMark struct {
	objects blobs.Objects
	log     *slog.Logger
}

// errNoMark says that the store has no owner mark. Whoever had it cannot tell why it is gone, so nobody takes it by itself.
var errNoMark = fmt.Errorf("there is no owner mark %s in it", markName)

// Claim creates the mark; one that says the same already is as good.
func (m ownerMark) Claim(ctx context.Context, clusterID, epoch string) error {
	_, err := m.create(ctx, ownership{Cluster: clusterID, Epoch: epoch, Incarnation: 1})
	if err == nil {
		return nil
	}
	if errors.Is(err, blobs.ErrUnsupported) {
		m.log.Warn("the store has no conditional writes: no owner mark guards it against a second cluster, so nothing will ever be deleted from it")
		return nil
	}
	if !errors.Is(err, blobs.ErrExists) {
		return fmt.Errorf("claim the store: %w", err)
	}
	owner, ownerEpoch, err := m.Owner(ctx)
	if err != nil {
		return err
	}
	if owner != clusterID || ownerEpoch != epoch {
		return fmt.Errorf("claim the store: it belongs to cluster %s (%s says so): "+
			"join that cluster, or use another bucket or directory", owner, markName)
	}
	return nil
}

// holds answers nil when the store has the mark of one of the clusters. One that cannot have a mark is never sure.
func (m ownerMark) holds(ctx context.Context, clusters ...string) error {
	if m.objects == nil {
		return fmt.Errorf("it can hold no owner mark %s", markName)
	}
	o, _, err := m.read(ctx)
	if err != nil {
		return err
	}
	for _, id := range clusters {
		if id != "" && id == o.Cluster {
			return nil
		}
	}
	return fmt.Errorf("it belongs to cluster %s (%s says so)", o.Cluster, markName)
}

// Owner answers who has the mark, empty when nobody has.
func (m ownerMark) Owner(ctx context.Context) (clusterID, epoch string, err error) {
	o, _, err := m.read(ctx)
	if errors.Is(err, errNoMark) {
		return "", "", nil
	}
	return o.Cluster, o.Epoch, err
}

// read answers what the mark says now, and its version; errNoMark when there is none.
func (m ownerMark) read(ctx context.Context) (ownership, string, error) {
	body, version, err := m.objects.Get(ctx, markName)
	if errors.Is(err, blobs.ErrNotFound) {
		return ownership{}, "", errNoMark
	}
	if err != nil {
		return ownership{}, "", fmt.Errorf("read the owner mark %s: %w", markName, err)
	}
	o, err := parseOwnership(body)
	if err != nil {
		return ownership{}, "", fmt.Errorf("read the owner mark %s: %w", markName, err)
	}
	return o, version, nil
}

// create writes the first mark and answers its version.
func (m ownerMark) create(ctx context.Context, o ownership) (string, error) {
	body, err := o.encode(rand.Text())
	if err != nil {
		return "", err
	}
	return m.objects.PutIfAbsent(ctx, markName, body)
}

// replace writes the mark in place of the version. blobs.ErrChanged: somebody was first. blobs.ErrUnavailable says
// nothing of the effect, and the write may even come late: it meets no version that it could replace then, since no two
// writes have the same bytes (S3's versions are sums of them).
func (m ownerMark) replace(ctx context.Context, o ownership, version string) (string, error) {
	body, err := o.encode(rand.Text())
	if err != nil {
		return "", err
	}
	return m.objects.PutIfMatch(ctx, markName, body, version)
}

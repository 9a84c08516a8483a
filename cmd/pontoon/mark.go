package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/pontoon-registry/pontoon/blobs"
)

// markName is where the owner mark is, outside every epoch's prefix. It never changes: two releases must find the same mark.
const markName = "pontoon-owner.json"

// ownerMark is cluster.Mark over blobs.Objects: whose bucket this is (G9). It is
// changed by conditional writes only, so of two clusters one gets it.
type ownerMark struct {
	objects blobs.Objects
	log     *slog.Logger
}

// ownership is the mark's body. Fields are only ever added.
type ownership struct {
	Cluster string `json:"cluster"`
	Epoch   string `json:"epoch"`
	// SweptThrough is the highest log index whose condemned keys may already be gone (G9); the sweep raises it.
	SweptThrough uint64 `json:"swept_through"`
}

// Claim creates the mark; one that says the same already is as good.
func (m ownerMark) Claim(ctx context.Context, clusterID, epoch string) error {
	body, err := json.Marshal(ownership{Cluster: clusterID, Epoch: epoch})
	if err != nil {
		return fmt.Errorf("claim the store: %w", err)
	}
	_, err = m.objects.PutIfAbsent(ctx, markName, body)
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

// holds answers nil when the store has the mark of the cluster. One that cannot have a mark is never sure.
func (m ownerMark) holds(ctx context.Context, clusterID string) error {
	if m.objects == nil {
		return fmt.Errorf("it can hold no owner mark %s", markName)
	}
	owner, _, err := m.Owner(ctx)
	switch {
	case err != nil:
		return err
	case owner == "":
		return fmt.Errorf("there is no owner mark %s in it", markName)
	case owner != clusterID:
		return fmt.Errorf("it belongs to cluster %s (%s says so)", owner, markName)
	}
	return nil
}

// Owner answers who has the mark, empty when nobody has.
func (m ownerMark) Owner(ctx context.Context) (clusterID, epoch string, err error) {
	body, _, err := m.objects.Get(ctx, markName)
	if errors.Is(err, blobs.ErrNotFound) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("read the owner mark %s: %w", markName, err)
	}
	var o ownership
	if err := json.Unmarshal(body, &o); err != nil {
		return "", "", fmt.Errorf("read the owner mark %s: %w", markName, err)
	}
	if o.Cluster == "" || o.Epoch == "" {
		return "", "", fmt.Errorf("read the owner mark %s: it names no cluster or no epoch: %w", markName, blobs.ErrCorrupt)
	}
	return o.Cluster, o.Epoch, nil
}

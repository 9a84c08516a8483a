package oci

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// maxPulls bounds the manifests whose pulls are counted between two proposals;
// pulls of further ones go uncounted.
const maxPulls = 10_000

// pulls counts pulls of manifests on this node. They are proposed together, never one by one.
type pulls struct {
	// mu guards counts.
	mu     sync.Mutex
	counts map[pulled]int64
}

type pulled struct {
	repository string
	digest     meta.Digest
}

func (p *pulls) add(repository string, d meta.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts == nil {
		p.counts = map[pulled]int64{}
	}
	key := pulled{repository, d}
	if _, known := p.counts[key]; known || len(p.counts) < maxPulls {
		p.counts[key]++
	}
}

func (p *pulls) take() map[pulled]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := p.counts
	p.counts = nil
	return counts
}

// Run proposes the pulls counted on this node every PullsInterval until ctx
// ends, and then once more. Counts that cannot be proposed are dropped and logged: they are
// statistics, not truth. It answers nil.
func (h *Handler) Run(ctx context.Context) error {
	tick := time.NewTicker(h.PullsInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.proposePulls(ctx)
		case <-ctx.Done():
			h.proposePulls(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// proposePulls proposes in commands of at most 1,000 rows, which stay far below the log's bound.
func (h *Handler) proposePulls(ctx context.Context) {
	const rows = 1000
	var batch []*metav1.PullCount
	counts := h.pulls.take()
	for key, n := range counts {
		batch = append(batch, &metav1.PullCount{Repository: key.repository, Digest: key.digest.Bytes(), Count: n})
		delete(counts, key)
		if len(batch) < rows && len(counts) > 0 {
			continue
		}
		if err := h.proposeBatch(ctx, batch); err != nil {
			h.Log.WarnContext(ctx, "pull counts dropped", "rows", len(batch), "error", err)
		}
		batch = nil
	}
}

func (h *Handler) proposeBatch(ctx context.Context, batch []*metav1.PullCount) error {
	ctx, cancel := context.WithTimeout(ctx, h.ProposeTimeout)
	defer cancel()
	_, err := h.Ledger.Propose(ctx, &metav1.Command{
		Envelope: &metav1.Envelope{Actor: &metav1.Actor{Name: "system:pulls", Method: "system"}},
		Kind:     &metav1.Command_AddPulls{AddPulls: &metav1.AddPulls{Pulls: batch}},
	})
	return err
}

// countPull tells the metrics how a GET of content ended.
func (c *call) countPull(err error) {
	if c.r.Method != http.MethodGet || (c.target != manifests && c.target != blobsOf) {
		return
	}
	what := "blobs"
	if c.target == manifests {
		what = "manifests"
	}
	c.Metrics.Pulled(what, pullResult(err))
}

func pullResult(err error) string {
	if err == nil {
		return "ok"
	}
	if errors.Is(err, context.Canceled) {
		return "client_gone"
	}
	switch answerOf(err).status {
	case http.StatusUnauthorized:
		return "unauthenticated"
	case http.StatusForbidden:
		return "denied"
	case http.StatusNotFound:
		return "not_found"
	case statusClientClosed:
		return "client_gone"
	}
	return "error"
}

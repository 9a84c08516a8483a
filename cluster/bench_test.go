package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pontoon-registry/pontoon/meta"
)

// hammer runs fn b.N times on 64 goroutines and reports the rate.
func hammer(b *testing.B, fn func(ctx context.Context, worker, i int) error) {
	b.Helper()
	var next atomic.Int64
	var workers sync.WaitGroup
	b.ResetTimer()
	for w := range 64 {
		workers.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := fn(b.Context(), w, int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

func BenchmarkThreeNodes(b *testing.B) {
	nodes := trio(b)
	leader, followers := leaderOf(b, nodes)
	for _, at := range []struct {
		name string
		node *running
	}{{"leader", leader}, {"follower", followers[0]}} {
		b.Run("propose/"+at.name, func(b *testing.B) {
			hammer(b, func(ctx context.Context, worker, i int) error {
				_, err := at.node.Propose(ctx, putNode(fmt.Sprintf("w%d", worker), fmt.Sprintf("host-%d:1", i)))
				return err
			})
		})
		b.Run("view/"+at.name, func(b *testing.B) {
			hammer(b, func(ctx context.Context, _, _ int) error {
				return at.node.View(ctx, meta.Read{}, func(*meta.View) error { return nil })
			})
		})
	}
}

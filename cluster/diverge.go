package cluster

import "context"

// divergence is what is known of a state that differs from the majority's.
type divergence struct{}

func (n *Node) compare(ctx context.Context) error { <-ctx.Done(); return nil }

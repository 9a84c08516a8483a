package cluster

import (
	"context"
	"time"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// bookkeeper is the duty that sweeps rows of nodes that are no members out of
// the address book: left by a removal that a crash cut in two, or by a node that was gone before it could join.
type bookkeeper struct {
	node *Node
	// ghosts are rows without a member, since when.
	ghosts map[string]time.Time
}

const (
	bookEvery = 5 * time.Second
	// ghostFor is how long a row may be without a member: a join writes the row first.
	ghostFor = time.Minute
)

func (b *bookkeeper) run(ctx context.Context, _ Leadership) error {
	b.ghosts = map[string]time.Time{}
	return every(ctx, b.node.cfg.brisk(bookEvery), b.sweep)
}

func (b *bookkeeper) sweep(ctx context.Context) error {
	seen := map[string]time.Time{}
	for _, m := range b.node.nodes() {
		id := m.GetId()
		if b.node.configured(id) {
			continue
		}
		since, known := b.ghosts[id]
		if !known {
			since = time.Now()
		}
		if time.Since(since) < b.node.cfg.brisk(b.node.cfg.ghostFor) {
			seen[id] = since
			continue
		}
		if err := b.node.strike(ctx, id, &metav1.Envelope{Actor: &metav1.Actor{Name: "system:book", Method: "system"}}); err != nil {
			return err
		}
		b.node.log.Info("the address book forgets a node that is no member", "id", id, "name", m.GetName())
	}
	b.ghosts = seen
	return nil
}

package cluster

import (
	"context"
	"log/slog"
	"time"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// defectsEvery is how often a node looks whether a command has panicked in its state.
const defectsEvery = 5 * time.Second

// watchDefects says in the log which commands panicked (M2): whoever sent one was told the log index to look for.
func (n *Node) watchDefects(ctx context.Context) error {
	told, begun := uint64(0), false
	for ; ctx.Err() == nil; n.lookAgain(ctx, defectsEvery) {
		all, err := n.state.Defects()
		if err != nil {
			n.log.Warn("the defects that the state noted cannot be read", "error", err)
			continue
		}
		if !begun && len(all) > 0 {
			told = all[len(all)-1].GetIndex() // those were told before this start
		}
		begun = true
		told = tellDefects(n.log, all, told)
	}
	return nil
}

// tellDefects tells those after the index told, and answers the last index.
func tellDefects(log *slog.Logger, all []*metav1.Defect, told uint64) uint64 {
	last := told
	for _, d := range all {
		if d.GetIndex() <= told {
			continue
		}
		last = max(last, d.GetIndex())
		log.Error("a command met a defect of Pontoon and was refused, on every node alike; it changed nothing: please report this line",
			"index", d.GetIndex(), "command", d.GetCommand(), "says", d.GetMessage())
	}
	return last
}

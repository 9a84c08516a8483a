package cluster

import (
	"context"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	tidyEvery = 10 * time.Second
	// tidyStep bounds what one command of a duty touches (R-E3), and tidyPages the pages that one pass reads.
	tidyStep  = 1000
	tidyPages = 32
)

// tidier lets what has expired by the cluster's clock go, in bounded steps. It
// only suggests: Apply decides each again. One per term.
type tidier struct {
	node *Node
	// upload is where the scan of uploads goes on.
	upload string
	// counted events are those up to event; trimmed ones are taken off.
	event   meta.EventCursor
	counted int64
}

func (t *tidier) run(ctx context.Context, _ Leadership) error {
	*t = tidier{node: t.node}
	return every(ctx, t.node.cfg.brisk(tidyEvery), func(ctx context.Context) error {
		if _, err := t.propose(ctx, t.locks); err != nil {
			return err
		}
		if _, err := t.propose(ctx, t.uploads); err != nil {
			return err
		}
		result, err := t.propose(ctx, t.events)
		t.counted -= result.GetCount().GetRows()
		return err
	})
}

// propose proposes what next finds, if anything.
func (t *tidier) propose(ctx context.Context, next func(*meta.View) (*metav1.Command, error)) (*metav1.Result, error) {
	var c *metav1.Command
	err := t.node.View(ctx, meta.Read{}, func(v *meta.View) (err error) {
		c, err = next(v)
		return err
	})
	if err != nil || c == nil {
		return nil, err
	}
	c.Envelope = &metav1.Envelope{Actor: &metav1.Actor{Name: "system:tidy", Method: "system"}, NodeId: t.node.id}
	return t.node.Propose(ctx, c)
}

func (t *tidier) locks(v *meta.View) (*metav1.Command, error) {
	names, err := v.ExpiredLocks(tidyStep)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	return &metav1.Command{Kind: &metav1.Command_ExpireLocks{ExpireLocks: &metav1.ExpireLocks{Names: names}}}, nil
}

// uploads goes through all uploads, some pages a pass, and from the start again after the last.
func (t *tidier) uploads(v *meta.View) (*metav1.Command, error) {
	var ids []string
	for range tidyPages {
		rows, more, err := v.Uploads(t.upload, tidyStep)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			t.upload = row.ID
			if row.GetExpires() <= v.ClusterTime() {
				ids = append(ids, row.ID)
			}
			if len(ids) == tidyStep {
				return expireUploads(ids), nil
			}
		}
		if !more {
			t.upload = ""
			break
		}
	}
	return expireUploads(ids), nil
}

func expireUploads(ids []string) *metav1.Command {
	if len(ids) == 0 {
		return nil
	}
	return &metav1.Command{Kind: &metav1.Command_ExpireUploads{ExpireUploads: &metav1.ExpireUploads{Ids: ids}}}
}

// events finds the oldest that are too many or too old.
func (t *tidier) events(v *meta.View) (*metav1.Command, error) {
	system, err := v.System()
	if err != nil {
		return nil, err
	}
	if err := t.count(v); err != nil {
		return nil, err
	}
	oldest, _, err := v.Events(meta.EventCursor{}, tidyStep)
	if err != nil {
		return nil, err
	}
	tooMany, before := t.counted-system.GetSettings().GetEventCount(), uint64(0)
	for i, e := range oldest {
		if int64(i) >= tooMany && e.GetClusterTime()+system.GetSettings().GetEventAge() > v.ClusterTime() {
			break
		}
		before = e.Index + 1
	}
	if before == 0 {
		return nil, nil
	}
	return &metav1.Command{Kind: &metav1.Command_TrimEvents{TrimEvents: &metav1.TrimEvents{Before: before, Limit: tidyStep}}}, nil
}

// count goes on counting where the last pass ended.
func (t *tidier) count(v *meta.View) error {
	for range tidyPages {
		rows, more, err := v.Events(t.event, tidyStep)
		if err != nil {
			return err
		}
		t.counted += int64(len(rows))
		if len(rows) > 0 {
			t.event = rows[len(rows)-1].EventCursor
		}
		if !more {
			break
		}
	}
	return nil
}

package gc

import (
	"context"
	"fmt"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
)

// What says what a cycle would do with an Item.
type What string

// What a cycle can do.
const (
	// DeleteManifest: an untagged manifest would go; its blobs keep a grace from then, so they go in a later cycle.
	DeleteManifest What = "delete-manifest"
	// CondemnBlob: a blob would go from the ledger, and its key be condemned.
	CondemnBlob What = "condemn-blob"
	// DeleteKey: a condemned key that is due would be deleted.
	DeleteKey What = "delete-key"
	// KeepKey: a condemned key would stay for now.
	KeepKey What = "keep-key"
	// DeleteOrphan: an object that the ledger never knew would be deleted.
	DeleteOrphan What = "delete-orphan"
	// AbortMultipart: a multipart upload that nobody can complete would be ended.
	AbortMultipart What = "abort-multipart"
)

// Item is one thing that a cycle would do. Of the names only those that it is about are set.
type Item struct {
	What        What
	Repository  string
	Digest      meta.Digest
	Key         string
	MultipartID string
	Bytes       int64
	// Reason says it to a person.
	Reason string
}

// PlanOptions say what a cycle would be begun with.
type PlanOptions struct {
	// Untagged as in Config.
	Untagged bool
	// ForgetEpochs as in RequestCycle.
	ForgetEpochs []string
}

// Plan is the dry run: it tells report what a cycle would do now, in order, and changes nothing. It asks the same views and
// makes the same decisions as a cycle, in bounded steps, so what is pushed or deleted meanwhile may or may not be seen.
// It does not ask whether the store is ours. It runs on any node; an error of report ends it.
func (c *Collector) Plan(ctx context.Context, o PlanOptions, report func(Item) error) error {
	p := &planning{Collector: c, report: report, stepped: time.Now()}
	if o.Untagged {
		if err := p.untagged(ctx); err != nil {
			return fmt.Errorf("plan untagged manifests: %w", err)
		}
	}
	if err := p.blobs(ctx); err != nil {
		return fmt.Errorf("plan blobs: %w", err)
	}
	if err := p.keys(ctx); err != nil {
		return fmt.Errorf("plan condemned keys: %w", err)
	}
	epochs, err := c.epochs(ctx, o.ForgetEpochs)
	if err != nil {
		return fmt.Errorf("plan orphans: %w", err)
	}
	for _, epoch := range epochs {
		if err := p.orphans(ctx, epoch); err != nil {
			return fmt.Errorf("plan orphans of epoch %s: %w", epoch, err)
		}
	}
	return nil
}

// planning is one run of Plan.
type planning struct {
	*Collector
	report  func(Item) error
	stepped time.Time
}

func (p *planning) rest(ctx context.Context) error { return rest(ctx, &p.stepped) }

func (p *planning) untagged(ctx context.Context) error {
	for at, done := (meta.UntaggedCursor{}), false; !done; {
		found, next, last, err := p.findUntagged(ctx, at)
		if err != nil {
			return err
		}
		for _, m := range found {
			item := Item{What: DeleteManifest, Repository: m.Repository, Digest: m.Digest, Bytes: m.GetSize(), Reason: m.Why.String()}
			if err := p.report(item); err != nil {
				return err
			}
		}
		at, done = next, last
		if err := p.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *planning) blobs(ctx context.Context) error {
	for at, done := meta.Digest(""), false; !done; {
		found, next, last, _, err := p.findUnneeded(ctx, at)
		if err != nil {
			return err
		}
		for _, b := range found {
			item := Item{What: CondemnBlob, Digest: b.Digest, Key: b.GetKey(), Bytes: b.GetSize(), Reason: b.Why.String()}
			if err := p.report(item); err != nil {
				return err
			}
		}
		at, done = next, last
		if err := p.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *planning) keys(ctx context.Context) error {
	for at, done := "", false; !done; {
		page, err := p.findCondemned(ctx, at)
		if err != nil {
			return err
		}
		for _, row := range page.rows {
			item := Item{What: KeepKey, Key: row.Key, Bytes: row.GetSize(), Reason: whyKept(row.Stay, page.clock)}
			switch {
			case page.foreign.has(row.Key):
				item.Reason = "it lies under another cluster's epoch, which nobody said to forget (`pontoon gc adopt --forget-epoch`)"
			case row.Stay.IsDue():
				item.What = DeleteKey
				item.Reason = fmt.Sprintf("condemned at index %d; its delay is over and no backup needs it", row.GetIndex())
			}
			if err := p.report(item); err != nil {
				return err
			}
		}
		at, done = page.next, page.done
		if err := p.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// whyKept says to a person why a key stays.
func whyKept(s meta.Stay, clock int64) string {
	why := ""
	if s.Backup != "" {
		why = "backup " + s.Backup + " needs it"
	}
	if s.Until != 0 {
		if why != "" {
			why += ", and "
		}
		why += fmt.Sprintf("its delay is over in %v", time.Duration(s.Until-clock).Round(time.Second))
	}
	return why
}

func (p *planning) orphans(ctx context.Context, epoch string) error {
	err := pages(ctx, p.sizes.page, p.listObjects(epoch, ""), func(listed []blobs.Object) error {
		strays, err := p.strayObjects(ctx, epoch, listed)
		if err != nil {
			return err
		}
		for _, o := range strays {
			item := Item{What: DeleteOrphan, Key: o.Key, Bytes: o.Size, Reason: p.whyOrphan(o.Modified)}
			if err := p.report(item); err != nil {
				return err
			}
		}
		return p.rest(ctx)
	})
	if err != nil {
		return err
	}
	return pages(ctx, p.sizes.page, p.listMultiparts(epoch), func(listed []blobs.Multipart) error {
		strays, err := p.strayMultiparts(ctx, epoch, listed)
		if err != nil {
			return err
		}
		for _, m := range strays {
			item := Item{What: AbortMultipart, Key: m.Key, MultipartID: m.ID, Reason: p.whyOrphan(m.Initiated)}
			if err := p.report(item); err != nil {
				return err
			}
		}
		return p.rest(ctx)
	})
}

func (p *planning) whyOrphan(date time.Time) string {
	return fmt.Sprintf("the ledger does not know it and no open upload can be writing it; %v old", p.cfg.Now().Sub(date).Round(time.Second))
}

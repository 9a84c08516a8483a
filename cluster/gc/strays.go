package gc

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// epochs are the prefixes to go through: the cluster's own, and those that it was told to forget.
func (c *Collector) epochs(ctx context.Context, forget []string) (all []string, err error) {
	err = c.view(ctx, func(v *meta.View) error {
		system, err := v.System()
		all = []string{system.GetEpoch()}
		return err
	})
	for _, epoch := range forget {
		if !slices.Contains(all, epoch) {
			all = append(all, epoch)
		}
	}
	return all, err
}

func (c *Collector) listObjects(epoch, after string) func(context.Context) iter.Seq2[blobs.Object, error] {
	return func(ctx context.Context) iter.Seq2[blobs.Object, error] {
		return c.cfg.Store.List(ctx, epoch+"/", after)
	}
}

func (c *Collector) listMultiparts(epoch string) func(context.Context) iter.Seq2[blobs.Multipart, error] {
	return func(ctx context.Context) iter.Seq2[blobs.Multipart, error] {
		return c.cfg.Store.ListMultiparts(ctx, epoch+"/")
	}
}

// strayObjects answers those of the listed objects that may be deleted.
func (c *Collector) strayObjects(ctx context.Context, epoch string, listed []blobs.Object) (strays []blobs.Object, err error) {
	old := c.cfg.Now().Add(-c.cfg.OrphanAge)
	err = c.view(ctx, func(v *meta.View) error {
		for _, o := range listed {
			stray, err := c.stray(v, stored{epoch: epoch, key: o.Key, date: o.Modified}, old)
			if err != nil {
				return err
			}
			if stray {
				strays = append(strays, o)
			}
		}
		return nil
	})
	return strays, err
}

// stored is what a listing named under an epoch's prefix.
type stored struct {
	epoch, key string
	date       time.Time
	multipart  bool
}

// stray says whether it is an orphan: of the epoch, a key (G7), not younger than old, of no upload that is open and of
// no row; a multipart upload under a live key is one too, for the object does not need it. Without a date it is young.
func (c *Collector) stray(v *meta.View, s stored, old time.Time) (bool, error) {
	name, _, err := blobs.ParseKey(s.key)
	if err != nil || name.Epoch != s.epoch || s.date.IsZero() || s.date.After(old) {
		return false, nil
	}
	row, err := v.Object(c.cfg.StoreName, s.key)
	switch {
	case err == nil:
		return s.multipart && row.GetLive() != nil, nil
	case meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN:
		return false, err
	}
	u, err := v.Upload(name.Upload)
	if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
		return true, nil
	}
	return err == nil && u.GetOutcome() != metav1.UploadOutcome_UPLOAD_OUTCOME_UNSPECIFIED, err
}

// strayMultiparts answers those that may be aborted. Those under a condemned key are left to the sweep.
func (c *Collector) strayMultiparts(ctx context.Context, epoch string, listed []blobs.Multipart) (strays []blobs.Multipart, err error) {
	old := c.cfg.Now().Add(-c.cfg.OrphanAge)
	err = c.view(ctx, func(v *meta.View) error {
		for _, m := range listed {
			stray, err := c.stray(v, stored{epoch: epoch, key: m.Key, date: m.Initiated, multipart: true}, old)
			if err != nil {
				return err
			}
			if stray {
				strays = append(strays, m)
			}
		}
		return nil
	})
	return strays, err
}

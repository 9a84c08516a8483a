package gc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// sweeping is the state of the phase that deletes condemned keys which are due (G6):
//
//	view ─► raise the mark above them (G9) ─► abort their multipart uploads ─► delete ─► forget
//
// Whatever happens between two of these, the key is condemned still and comes again. A key that was due stays so: a
// backup that is opened later cannot need it.
type sweeping struct {
	*turn
	kept *metav1.CycleKept
	// halted: nothing is deleted any more in this phase, only counted; foreign: because the store is not ours.
	halted, foreign bool
}

func (t *turn) sweep(ctx context.Context) error {
	at := string(t.place().Key)
	s := &sweeping{turn: t, kept: &metav1.CycleKept{}}
	if at != "" && t.row.GetKept() != nil {
		s.kept = proto.CloneOf(t.row.GetKept())
	}
	for {
		page, err := t.findCondemned(ctx, at)
		if err != nil {
			return err
		}
		if err := s.step(ctx, page.rows, page.foreign); err != nil {
			return err
		}
		t.kept = proto.CloneOf(s.kept)
		if page.done {
			return t.next(ctx, metav1.CyclePhase_CYCLE_PHASE_ORPHANS)
		}
		at = page.next
		if err := t.recordNowAndThen(ctx, place{Key: []byte(at)}); err != nil {
			return err
		}
		if err := t.rest(ctx); err != nil {
			return err
		}
	}
}

// condemnedPage is a page of condemned keys, as one view has them.
type condemnedPage struct {
	rows []meta.CondemnedKey
	// next is where to go on unless done.
	next string
	done bool
	// clock is the view's, cluster time.
	clock   int64
	foreign foreignKeys
}

func (c *Collector) findCondemned(ctx context.Context, at string) (p condemnedPage, err error) {
	err = c.view(ctx, func(v *meta.View) error {
		p.clock = v.ClusterTime()
		if p.foreign, err = foreignOf(v); err != nil {
			return err
		}
		p.rows, p.next, p.done, err = v.Condemned(c.cfg.StoreName, at, c.sizes.page)
		return err
	})
	return p, err
}

// foreignKeys tells keys under another cluster's epoch. A restored ledger has condemned some of them, or will; but the
// cluster that wrote them may live, and need them: they are deleted only once somebody said to forget that epoch. So a
// drill costs the cluster beside it nothing, even after it took the mark.
type foreignKeys struct {
	own       string
	forgotten []string
}

func foreignOf(v *meta.View) (f foreignKeys, err error) {
	system, err := v.System()
	if err != nil {
		return f, err
	}
	row, err := v.Collection()
	return foreignKeys{own: system.GetEpoch(), forgotten: row.GetForgotten()}, err
}

func (f foreignKeys) has(key string) bool {
	epoch, _, _ := strings.Cut(key, "/")
	return epoch != f.own && !slices.Contains(f.forgotten, epoch)
}

// step deletes those of a page that are due, and counts the others.
func (s *sweeping) step(ctx context.Context, rows []meta.CondemnedKey, foreign foreignKeys) error {
	var due []meta.CondemnedKey
	for _, row := range rows {
		switch {
		case foreign.has(row.Key):
			s.kept.ForEpoch++
		case row.Stay.Backup != "":
			s.kept.ForBackup++
		case !row.Stay.IsDue():
			s.kept.ForDelay++
		default:
			due = append(due, row)
			continue
		}
		s.keep(row)
	}
	for chunk := range slices.Chunk(due, s.batch()) {
		if err := s.chunk(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

// keep counts a key that stays for now.
func (s *sweeping) keep(rows ...meta.CondemnedKey) {
	for _, row := range rows {
		s.kept.Keys++
		s.kept.Bytes += row.GetSize()
	}
}

// chunk deletes keys that are due, in one call of the store.
func (s *sweeping) chunk(ctx context.Context, due []meta.CondemnedKey) error {
	if !s.halted {
		if err := s.claim(ctx, due); err != nil {
			return err
		}
	}
	if s.halted {
		s.keep(due...)
		if s.foreign {
			s.kept.ForMark += int64(len(due))
		}
		return nil
	}
	ready, err := s.abortAll(ctx, due)
	if err != nil || s.halted {
		s.keep(due...)
		return err
	}
	gone, err := s.erase(ctx, ready)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		s.fail("delete condemned keys", err)
	}
	s.halted = s.refuses(len(ready), len(gone), err)
	if err := s.forget(ctx, gone); err != nil {
		return err
	}
	for _, row := range due {
		if !slices.Contains(gone, row.Key) {
			s.keep(row)
		}
	}
	return nil
}

// claim raises the mark above the keys that are about to go (G9).
func (s *sweeping) claim(ctx context.Context, due []meta.CondemnedKey) error {
	var highest uint64
	for _, row := range due {
		highest = max(highest, row.GetIndex())
	}
	err := s.raise(ctx, highest)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrNotOwner):
		s.fail("delete nothing: `pontoon gc adopt` takes the store over", err)
		s.halted, s.foreign = true, true
	case err != nil:
		s.fail("raise the owner mark", err)
		s.halted = true
	}
	return nil
}

// abortAll ends the multipart uploads that the ledger knows under the keys: some servers list none by prefix. It answers
// the keys that may be deleted, and forgotten, now.
func (s *sweeping) abortAll(ctx context.Context, due []meta.CondemnedKey) (ready []string, err error) {
	for _, row := range due {
		err := s.abortUnder(ctx, row)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err == nil:
			ready = append(ready, row.Key)
			continue
		}
		s.count.Failed++
		s.fail("abort a multipart upload", err)
		if s.halted = unavailable(err); s.halted {
			return nil, nil
		}
	}
	return ready, nil
}

func (s *sweeping) abortUnder(ctx context.Context, row meta.CondemnedKey) error {
	for _, id := range row.GetMultipartIds() {
		if err := s.abort(ctx, row.Key, id); err != nil {
			return err
		}
		s.count.AbortedMultiparts++
	}
	return nil
}

// forget drops the rows of keys that are gone; Apply decides again whether they were due (G6), and counts them.
func (s *sweeping) forget(ctx context.Context, gone []string) error {
	for some := range slices.Chunk(gone, s.sizes.forget) {
		_, err := s.decide(ctx, fmt.Sprintf("forget %d keys from %s", len(some), some[0]), &metav1.Command{
			Kind: &metav1.Command_ForgetKeys{ForgetKeys: &metav1.ForgetKeys{
				Store: s.cfg.StoreName, Keys: some, Cycle: s.row.GetBegun().GetIndex(),
			}}})
		if err != nil {
			return err
		}
	}
	return nil
}

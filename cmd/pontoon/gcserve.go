package main

import (
	"context"
	"fmt"

	"github.com/pontoon-registry/pontoon/cluster/gc"
	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Plan is admin.Collector's.
func (f *forgetting) Plan(ctx context.Context, forgetEpochs []string, yield func(*adminv1.PlanCycleResponse) error) error {
	sum := &adminv1.PlanSum{Totals: map[string]*adminv1.PlanTotal{}}
	err := f.collector.Plan(ctx, gc.PlanOptions{Untagged: f.cfg.Untagged, ForgetEpochs: forgetEpochs}, func(i gc.Item) error {
		total := sum.Totals[string(i.What)]
		if total == nil {
			total = &adminv1.PlanTotal{}
			sum.Totals[string(i.What)] = total
		}
		total.Count++
		total.Bytes += i.Bytes
		return yield(&adminv1.PlanCycleResponse{Kind: &adminv1.PlanCycleResponse_Item{Item: &adminv1.PlanItem{
			Action: string(i.What), Digest: i.Digest.String(), Repository: i.Repository, Key: i.Key, Multipart: i.MultipartID, Bytes: i.Bytes, Reason: i.Reason,
		}}})
	})
	if err != nil {
		return err
	}
	mark, err := f.mark.look(ctx)
	if err != nil {
		return fmt.Errorf("look at the owner mark: %w", err)
	}
	sum.Problem = mark.problem()
	return yield(&adminv1.PlanCycleResponse{Kind: &adminv1.PlanCycleResponse_Sum{Sum: sum}})
}

// Verify is admin.Collector's.
func (f *forgetting) Verify(ctx context.Context, markLost bool, by *metav1.Envelope, yield func(*adminv1.VerifyStoreResponse) error) error {
	if markLost {
		if err := f.owned(ctx); err != nil { // a wrong bucket lacks every layer, and none of them is lost (B7)
			return meta.Refuse(metav1.Kind_KIND_UNSUPPORTED, metav1.Noun_NOUN_STORE, "mark lost: no layer of this store counts as lost: %s", err)
		}
		f.log.Warn("an operator has layers marked lost that the store lacks", "by", by.GetActor().GetName())
	}
	sum, err := f.verify(ctx, markLost, yield)
	if err != nil {
		return err
	}
	found, err := f.store.inspect(ctx, f.cfg.Uploads)
	if err != nil {
		return fmt.Errorf("inspect the bucket: %w", err)
	}
	return yield(&adminv1.VerifyStoreResponse{Kind: &adminv1.VerifyStoreResponse_Sum{Sum: &adminv1.VerifySum{
		Index: sum.Index, Manifests: sum.Manifests, References: sum.References, Blobs: sum.Blobs, Keys: sum.Keys,
		Differences: sum.Differences, MarkedLost: sum.MarkedLost, UnneededKeys: sum.UnneededKeys, UnneededBytes: sum.UnneededBytes,
		OrphanKeys: sum.OrphanKeys, OrphanBytes: sum.OrphanBytes, Findings: findingsOf(found),
	}}})
}

// verified is a sum, and how many layers are missing that are not marked lost yet, or were not before.
type verified struct {
	gc.Verified
	missing int64
}

func (f *forgetting) verify(ctx context.Context, markLost bool, yield func(*adminv1.VerifyStoreResponse) error) (out verified, err error) {
	err = yield(&adminv1.VerifyStoreResponse{Kind: &adminv1.VerifyStoreResponse_Progress{Progress: &adminv1.VerifyProgress{
		Step: "computing anew who needs what, and listing the store"}}})
	if err != nil {
		return out, err
	}
	out.Verified, err = f.collector.Verify(ctx, gc.VerifyOptions{Folder: f.scratch, MarkLost: markLost}, func(d gc.Difference) error {
		if d.Kind == gc.Missing {
			out.missing++
		}
		return yield(&adminv1.VerifyStoreResponse{Kind: &adminv1.VerifyStoreResponse_Difference{Difference: &adminv1.Difference{
			Kind: string(d.Kind), Repository: d.Repository, Manifest: d.Manifest.String(), Blob: d.Blob.String(), Key: d.Key, Text: d.Detail,
		}}})
	})
	return out, err
}

// Adopt is admin.Collector's; see adoption.
func (f *forgetting) Adopt(ctx context.Context, req *adminv1.AdoptStoreRequest, by *metav1.Envelope, yield func(*adminv1.VerifyStoreResponse) error) (*adminv1.Adoption, error) {
	system, err := f.system(ctx)
	if err != nil {
		return nil, err
	}
	a, err := f.mark.judgeAdoption(ctx, req.GetFrom(), system.GetRestored())
	if err != nil {
		return nil, err
	}
	out := &adminv1.Adoption{Needless: a.needless, Search: a.search}
	if !a.seen.missing {
		out.Before = markOf(a.seen)
		out.After = out.Before
	}
	if a.needless || req.GetDryRun() {
		return out, nil
	}
	f.log.Warn("an operator adopts the store", "by", by.GetActor().GetName(), "from", a.from, "search", a.search)
	if a.search {
		sum, err := f.verify(ctx, req.GetAcceptMissing(), yield)
		if err != nil {
			return nil, err
		}
		if sum.missing > 0 && !req.GetAcceptMissing() {
			return nil, meta.Refuse(metav1.Kind_KIND_PRECONDITION, metav1.Noun_NOUN_BLOB, "adopt: %d layers that this cluster needs are not in the store; "+
				"if it is the right one and they are gone, say --accept-missing to mark them lost", sum.missing)
		}
		out.Lost = sum.MarkedLost
	}
	floor, err := f.sweptFloor(ctx)
	if err != nil {
		return nil, err
	}
	taken, err := f.mark.adopt(ctx, a, floor)
	if err != nil {
		return nil, err
	}
	out.After = markOf(taken)
	return out, nil
}

// sweptFloor is the highest index whose condemned keys this cluster may have deleted itself: with a backup those below
// what it protects (G6), else any.
func (f *forgetting) sweptFloor(ctx context.Context) (floor uint64, err error) {
	err = f.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		oldest, kept, err := v.OldestRestorable()
		if floor = v.Index(); kept {
			floor = min(floor, max(oldest, 1)-1)
		}
		return err
	})
	return floor, err
}

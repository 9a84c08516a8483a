package admin

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Bounds of the lock service.
const (
	minTTL    = time.Second
	maxTTL    = 24 * time.Hour
	nameBound = 255
)

// locks serves LockService.
type locks struct{ ledger meta.Ledger }

func (l *locks) AcquireLock(ctx context.Context, req *adminv1.AcquireLockRequest) (*adminv1.AcquireLockResponse, error) {
	if err := checkName("name", req.GetName()); err != nil {
		return nil, err
	}
	holder := req.GetHolder()
	if holder == "" {
		id, _ := identityOf(ctx)
		holder = id.Name
	}
	if err := checkName("holder", holder); err != nil {
		return nil, err
	}
	if err := checkTTL(req.GetTtl()); err != nil {
		return nil, err
	}
	res, err := l.ledger.Propose(ctx, &metav1.Command{
		Envelope: envelope(ctx),
		Kind: &metav1.Command_AcquireLock{AcquireLock: &metav1.AcquireLock{
			Name: req.GetName(), Holder: holder, Ttl: int64(req.GetTtl().AsDuration()),
		}},
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.AcquireLockResponse{Token: res.GetLock().GetToken(), Ttl: req.GetTtl()}, nil
}

func (l *locks) RenewLock(ctx context.Context, req *adminv1.RenewLockRequest) (*adminv1.RenewLockResponse, error) {
	if err := checkName("name", req.GetName()); err != nil {
		return nil, err
	}
	ttl := req.GetTtl()
	if ttl == nil {
		row, err := l.lock(ctx, req.GetName())
		if err != nil {
			return nil, err
		}
		ttl = durationpb.New(time.Duration(row.GetTtl()))
	}
	if err := checkTTL(ttl); err != nil {
		return nil, err
	}
	_, err := l.ledger.Propose(ctx, &metav1.Command{
		Envelope: envelope(ctx),
		Kind: &metav1.Command_RenewLock{RenewLock: &metav1.RenewLock{
			Name: req.GetName(), Token: req.GetToken(), Ttl: int64(ttl.AsDuration()),
		}},
	})
	return &adminv1.RenewLockResponse{Ttl: ttl}, err
}

func (l *locks) ReleaseLock(ctx context.Context, req *adminv1.ReleaseLockRequest) (*adminv1.ReleaseLockResponse, error) {
	if err := checkName("name", req.GetName()); err != nil {
		return nil, err
	}
	if req.GetToken() == 0 && !req.GetForce() {
		return nil, invalid(metav1.Noun_NOUN_LOCK, "token: got 0, expected the token that acquire answered, or force")
	}
	_, err := l.ledger.Propose(ctx, &metav1.Command{
		Envelope: envelope(ctx),
		Kind: &metav1.Command_ReleaseLock{ReleaseLock: &metav1.ReleaseLock{
			Name: req.GetName(), Token: req.GetToken(), Force: req.GetForce(),
		}},
	})
	return &adminv1.ReleaseLockResponse{}, err
}

func (l *locks) ListLocks(ctx context.Context, req *adminv1.ListLocksRequest) (*adminv1.ListLocksResponse, error) {
	n, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	out := &adminv1.ListLocksResponse{}
	err = l.ledger.View(ctx, meta.Read{}, func(v *meta.View) error {
		rows, more, err := v.Locks(req.GetPageToken(), n)
		if err != nil {
			return err
		}
		for _, row := range rows {
			out.Locks = append(out.Locks, &adminv1.Lock{
				Name:       row.Name,
				Holder:     row.GetHolder(),
				Token:      row.GetToken(),
				Ttl:        durationpb.New(time.Duration(row.GetTtl())),
				ExpiresIn:  durationpb.New(max(0, time.Duration(row.GetExpires()-v.ClusterTime()))),
				Acquired:   wall(row.GetAcquired()),
				AcquiredBy: row.GetAcquired().GetActor(),
			})
		}
		if more {
			out.NextPageToken = rows[len(rows)-1].Name
		}
		return nil
	})
	return out, err
}

func (l *locks) lock(ctx context.Context, name string) (*metav1.Lock, error) {
	var row *metav1.Lock
	err := l.ledger.View(ctx, meta.Read{}, func(v *meta.View) (err error) {
		row, err = v.Lock(name)
		return err
	})
	return row, err
}

// checkName bounds a lock's name or holder: it is shown on terminals and stands in keys.
func checkName(field, s string) error {
	if s == "" || len(s) > nameBound {
		return invalid(metav1.Noun_NOUN_LOCK, "%s: got %d bytes, expected 1 to %d", field, len(s), nameBound)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return invalid(metav1.Noun_NOUN_LOCK, "%s: got %q, expected printable text", field, s)
	}
	return nil
}

func checkTTL(d *durationpb.Duration) error {
	if ttl := d.AsDuration(); d.CheckValid() != nil || ttl < minTTL || ttl > maxTTL {
		return invalid(metav1.Noun_NOUN_LOCK, "ttl: got %s, expected %s to %s", ttl, minTTL, maxTTL)
	}
	return nil
}

package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/policy"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	"github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1/adminv1connect"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Members tells how the node and its cluster are. It must answer without a
// quorum, and soon: it reads what this node knows.
type Members interface {
	Status(ctx context.Context) (*adminv1.GetStatusResponse, error)
}

// Trust tells what the nodes show each other and trust. It must answer as Members do.
type Trust interface {
	Trust(ctx context.Context) (*adminv1.GetTrustResponse, error)
}

// Config is what the services stand on. All fields are required.
type Config struct {
	Ledger     meta.Ledger
	Members    Members
	Membership Membership
	Trust      Trust
	Collector  Collector
	Backups    Backups
}

// Validate names what is missing.
func (c Config) Validate() error {
	if c.Ledger == nil {
		return errors.New("admin: Ledger is required")
	}
	if c.Members == nil {
		return errors.New("admin: Members is required")
	}
	if c.Membership == nil {
		return errors.New("admin: Membership is required")
	}
	if c.Trust == nil {
		return errors.New("admin: Trust is required")
	}
	if c.Collector == nil {
		return errors.New("admin: Collector is required")
	}
	if c.Backups == nil {
		return errors.New("admin: Backups is required")
	}
	return nil
}

const (
	// requestBound is how long a message may be, in bytes: all are small.
	requestBound = 1 << 20
	// requestTime bounds a call; removing a very large repository may take the most of it.
	requestTime = 10 * time.Minute
	// streamTime bounds a call that tells how something long goes.
	streamTime = 24 * time.Hour
)

// New makes the handler of all services. Requests without an identity in their
// context (see Listen and ConnContext) are refused.
func New(c Config) (http.Handler, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	opts := []connect.HandlerOption{
		connect.WithInterceptors(admission{}),
		connect.WithReadMaxBytes(requestBound),
	}
	mux := http.NewServeMux()
	mux.Handle(adminv1connect.NewStatusServiceHandler(&status{c.Members}, opts...))
	mux.Handle(adminv1connect.NewRepositoryServiceHandler(&repositories{c.Ledger}, opts...))
	mux.Handle(adminv1connect.NewLockServiceHandler(&locks{c.Ledger}, opts...))
	mux.Handle(adminv1connect.NewTrustServiceHandler(&trust{c.Trust}, opts...))
	mux.Handle(adminv1connect.NewMemberServiceHandler(&membership{c.Members, c.Membership}, opts...))
	mux.Handle(adminv1connect.NewCollectionServiceHandler(&collection{c.Ledger, c.Collector, cyclePoll, cycleBegin}, opts...))
	mux.Handle(adminv1connect.NewSnapshotServiceHandler(&snapshots{c.Ledger, c.Backups, snapshotPoll}, opts...))
	return mux, nil
}

type identityKey struct{}

// withIdentity says who asks; ConnContext does it for the socket.
func withIdentity(ctx context.Context, id policy.Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

func identityOf(ctx context.Context) (policy.Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(policy.Identity)
	return id, ok
}

// envelope is who asks, as commands carry it (M1).
func envelope(ctx context.Context) *metav1.Envelope {
	id, _ := identityOf(ctx)
	return &metav1.Envelope{
		Actor:     &metav1.Actor{Name: id.Name, Method: id.Method, Groups: id.Groups},
		RequestId: rand.Text(),
	}
}

const (
	pageDefault = 100
	pageBound   = 1000
)

// pageSize checks the page_size of a list.
func pageSize(n int32) (int, error) {
	switch {
	case n == 0:
		return pageDefault, nil
	case n < 0 || n > pageBound:
		return 0, meta.Refuse(metav1.Kind_KIND_INVALID, metav1.Noun_NOUN_CURSOR,
			"page_size: got %d, expected 1 to %d, or 0 for %d", n, pageBound, pageDefault)
	}
	return int(n), nil
}

// invalid refuses a field.
func invalid(noun metav1.Noun, format string, args ...any) error {
	return meta.Refuse(metav1.Kind_KIND_INVALID, noun, "%s", fmt.Sprintf(format, args...))
}

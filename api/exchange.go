package api

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

// exchange is what the server keeps of one request and its answer. It is reached through the
// request's context by RequestID, Phase and NoteUser, which may be called from any goroutine.
type exchange struct {
	id     string
	begin  time.Time
	route  route
	timing timing
	user   atomic.Pointer[string]
	// waited is how long the node waited for the client, in nanoseconds: body reads and answer writes.
	waited atomic.Int64
}

type exchangeKey struct{}

func newExchange(r *http.Request) *exchange {
	return &exchange{id: requestID(r.Header), begin: time.Now(), route: classify(r.URL.Path)}
}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// RequestID answers the id of the request that ctx belongs to, empty outside one. It is at most 128
// bytes of letters, digits and -_.:/+=@, and crosses nodes in the command envelope.
func RequestID(ctx context.Context) string {
	if x := exchangeOf(ctx); x != nil {
		return x.id
	}
	return ""
}

// NoteUser tells the access log who asks. Outside a request it does nothing.
func NoteUser(ctx context.Context, name string) {
	if x := exchangeOf(ctx); x != nil && name != "" {
		x.user.Store(&name)
	}
}

func (x *exchange) userName() string {
	if p := x.user.Load(); p != nil {
		return *p
	}
	return ""
}

// own is the time the node itself took: what passed, less the waiting for the client.
func (x *exchange) own(total time.Duration) time.Duration {
	return max(total-time.Duration(x.waited.Load()), 0)
}

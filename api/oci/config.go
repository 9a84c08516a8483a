package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/policy"
)

// maxWarnings bounds the texts of all Warning headers together, in bytes
// (distribution-spec, section "Warnings").
const maxWarnings = 4096

// Access judges requests. Safe for concurrent use.
type Access interface {
	// Authorize answers who sends r, if they may do all that is asked; nothing
	// asked means "who has logged in, if login is required". A refusal is a *meta.Error of
	// KIND_UNAUTHENTICATED or KIND_DENIED; an error in the chain that has
	// the method Challenge() []string gives the values of WWW-Authenticate.
	Authorize(r *http.Request, asked ...policy.Access) (policy.Identity, error)
	// Allows says the same of one thing quietly, without a challenge.
	Allows(id policy.Identity, a policy.Access) bool
}

// Metrics counts. Safe for concurrent use; called on the request's path, so it must not block.
type Metrics interface {
	// Pulled counts a GET of "manifests" or "blobs" by its result: ok, denied,
	// unauthenticated, not_found, client_gone, error.
	Pulled(what, result string)
	// Pushed counts a commit of "manifests" or "blobs".
	Pushed(what string)
	// Received and Sent count bytes of blobs.
	Received(bytes int64)
	// Lost counts a blob that was marked lost (B7).
	Lost()
	Sent(bytes int64)
}

// Config is what a Handler needs. Zero values of the optional fields mean their defaults.
type Config struct {
	// Ledger, Store and Access are required.
	Ledger meta.Ledger
	Store  blobs.Store
	Access Access
	// StoreName is the name by which the ledger knows Store. Required.
	StoreName string

	// Delete allows DELETE of tags, manifests and blobs; without it they answer 405.
	Delete bool
	// Redirect answers GET of a blob with a presigned URL of the store, where it can make one.
	Redirect bool
	// RedirectLifetime is how long such a URL is valid. Default 20 min, at most 24 h
	// (garbage collection waits for it, G6).
	RedirectLifetime time.Duration
	// CatalogMax and TagsMax bound one page of the lists; a larger n is lowered to it. Default 1,000 and 10,000.
	CatalogMax, TagsMax int
	// Warnings are sent with every answer as `Warning: 299 - "text"`; together at most 4096 bytes.
	Warnings []string
	// LocationBase stands before "/v2/" in Location headers, such as
	// "https://registry.example.org". Default empty: relative, which survives every proxy.
	LocationBase string

	// IdleTimeout is how long a body may bring, or a reader take, no byte. Default 60 s.
	IdleTimeout time.Duration
	// ProposeTimeout bounds one proposal. Default 10 s.
	ProposeTimeout time.Duration
	// SaveBytes and SaveInterval say how often an upload in progress is saved. Default 64 MiB and 30 s.
	SaveBytes    int64
	SaveInterval time.Duration
	// PullsInterval is how often Run proposes the pulls counted here. Default 1 min.
	PullsInterval time.Duration

	// Owned asks the store whether it is the one that the ledger speaks of, and answers why it cannot be told: no blob is
	// marked lost in an empty bucket, or below a mount point without its mount. Nil: it is.
	Owned func(context.Context) error
	// RequestID answers the id of a request for the audit log. Default: none.
	RequestID func(context.Context) string
	// Log gets what the client is not told. Default: discard.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics Metrics
	// Timing hears how long the request with this context waited for "ledger" or "store", before
	// the header of the answer is written. May be nil.
	Timing func(ctx context.Context, phase string, took time.Duration)
}

// Validate fills the defaults in and names the first field that is out of bounds.
func (c *Config) Validate() error {
	switch {
	case c.Ledger == nil:
		return errors.New("oci: Ledger is required")
	case c.Store == nil:
		return errors.New("oci: Store is required")
	case c.Access == nil:
		return errors.New("oci: Access is required")
	case c.StoreName == "":
		return errors.New("oci: StoreName is required")
	}
	c.defaults()
	if c.RedirectLifetime < time.Second || c.RedirectLifetime > 24*time.Hour {
		return fmt.Errorf("oci: RedirectLifetime is %s, expected 1s to 24h", c.RedirectLifetime)
	}
	for field, n := range map[string]int64{
		"CatalogMax": int64(c.CatalogMax), "TagsMax": int64(c.TagsMax), "IdleTimeout": int64(c.IdleTimeout),
		"ProposeTimeout": int64(c.ProposeTimeout), "SaveBytes": c.SaveBytes,
		"SaveInterval": int64(c.SaveInterval), "PullsInterval": int64(c.PullsInterval),
	} {
		if n < 1 {
			return fmt.Errorf("oci: %s is %d, expected more than 0", field, n)
		}
	}
	size := 0
	for _, text := range c.Warnings {
		size += len(warning(text))
	}
	if size > maxWarnings {
		return fmt.Errorf("oci: Warnings are %d bytes, expected at most %d", size, maxWarnings)
	}
	return nil
}

func (c *Config) defaults() {
	orDefault(&c.RedirectLifetime, 20*time.Minute)
	orDefault(&c.CatalogMax, 1000)
	orDefault(&c.TagsMax, 10_000)
	orDefault(&c.IdleTimeout, time.Minute)
	orDefault(&c.ProposeTimeout, 10*time.Second)
	orDefault(&c.SaveBytes, 64<<20)
	orDefault(&c.SaveInterval, 30*time.Second)
	orDefault(&c.PullsInterval, time.Minute)
	if c.RequestID == nil {
		c.RequestID = func(context.Context) string { return "" }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = uncounted{}
	}
	if c.Timing == nil {
		c.Timing = func(context.Context, string, time.Duration) {}
	}
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// uncounted is no Metrics.
type uncounted struct{}

func (uncounted) Pulled(string, string) {}
func (uncounted) Pushed(string)         {}
func (uncounted) Received(int64)        {}
func (uncounted) Sent(int64)            {}
func (uncounted) Lost()                 {}

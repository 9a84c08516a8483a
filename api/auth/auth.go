package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/policy"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The modes of Config.Mode, which are also the values of policy.Identity.Method, but for ModeNone.
const (
	// ModeNone lets everybody do everything.
	ModeNone = "none"
	// ModeHtpasswd knows the users of a file.
	ModeHtpasswd = "htpasswd"

	methodAnonymous = "anonymous"
)

// Bounds on what a client may send as credentials, in bytes. bcrypt reads 72 bytes of a password.
const (
	maxUser     = 255
	maxPassword = 1024
)

// Config says who may come in. Keys are distribution's, below auth.
type Config struct {
	// Mode is ModeNone or ModeHtpasswd. Required, so that no mistake opens a registry.
	Mode string
	// Realm is what clients show when they ask for a password (auth.htpasswd.realm). Required with
	// ModeHtpasswd; at most 255 printable ASCII characters.
	Realm string
	// Path is the htpasswd file (auth.htpasswd.path), bcrypt hashes only. Required with ModeHtpasswd.
	Path string

	// Remember is how long a login that succeeded is not computed again. Default 1 min; at most 1 h. A change of
	// the file ends it at once.
	Remember time.Duration
	// Wait bounds the wait for a core that computes a login. Default 3 s; at most 1 min.
	Wait time.Duration

	// OnLogin hears of each login that was judged: ok, failed or busy. May be nil; must not block.
	OnLogin func(result string)
	// OnIdentity hears who sends the request with this context, once it is known. May be nil; must not block.
	OnIdentity func(context.Context, policy.Identity)
	// Timing hears how long the request with this context spent in phase "auth". May be nil; must not block.
	Timing func(ctx context.Context, phase string, took time.Duration)
	// Log takes warnings about the file. Default: discarded.
	Log *slog.Logger
}

// Validate names the field that is out of its bounds. It opens no file.
func (c Config) Validate() error {
	switch c.Mode {
	case ModeNone:
		return nil
	case ModeHtpasswd:
	default:
		return fmt.Errorf("auth: %q is no mode: expected %s or %s", c.Mode, ModeHtpasswd, ModeNone)
	}
	if c.Realm == "" || len(c.Realm) > 255 || strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("auth.htpasswd.realm %q: expected 1 to 255 printable ASCII characters", c.Realm)
	}
	if c.Path == "" {
		return errors.New("auth.htpasswd.path: required")
	}
	if c.Remember < 0 || c.Remember > time.Hour {
		return fmt.Errorf("auth: Remember %v is not between 0 and 1h", c.Remember)
	}
	if c.Wait < 0 || c.Wait > time.Minute {
		return fmt.Errorf("auth: Wait %v is not between 0 and 1m", c.Wait)
	}
	return nil
}

// Authenticator judges requests. Safe for concurrent use.
type Authenticator struct {
	cfg       Config
	challenge string
	users     *passwords // nil with ModeNone
}

// New checks the config and, with ModeHtpasswd, reads the file: it must be there, have a user, and nothing in it
// may be unusable (U5).
func New(c Config) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Remember == 0 {
		c.Remember = time.Minute
	}
	if c.Wait == 0 {
		c.Wait = 3 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &Authenticator{cfg: c}
	if c.Mode == ModeNone {
		return a, nil
	}
	users, err := openPasswords(c)
	if err != nil {
		return nil, fmt.Errorf("auth.htpasswd.path: %w", err)
	}
	a.users, a.challenge = users, basicChallenge(c.Realm)
	return a, nil
}

// Authorize answers who sends r, if they may do all that is asked; nothing asked means "who has logged in, if
// login is required". A refusal is a *meta.Error in the chain, of KIND_UNAUTHENTICATED (with *ChallengeError around
// it), KIND_DENIED, or KIND_UNAVAILABLE when too many logins wait.
func (a *Authenticator) Authorize(r *http.Request, asked ...policy.Access) (policy.Identity, error) {
	begin := time.Now()
	id, err := a.identify(r)
	if a.cfg.Timing != nil {
		a.cfg.Timing(r.Context(), "auth", time.Since(begin))
	}
	if err != nil {
		return policy.Identity{}, err
	}
	if a.cfg.OnIdentity != nil {
		a.cfg.OnIdentity(r.Context(), id)
	}
	for _, access := range asked {
		if !a.Allows(id, access) {
			return policy.Identity{}, meta.Refuse(metav1.Kind_KIND_DENIED, metav1.Noun_NOUN_REPOSITORY,
				"%s may not %s %s", id.Name, access.Verb, access.Repository)
		}
	}
	return id, nil
}

// Allows says whether id, as Authorize answered it, may do one thing. All may do everything for now: this is
// the seam where roles are asked.
func (a *Authenticator) Allows(id policy.Identity, _ policy.Access) bool {
	return a.cfg.Mode == ModeNone || id.Method == ModeHtpasswd
}

func (a *Authenticator) identify(r *http.Request) (policy.Identity, error) {
	if a.users == nil {
		return policy.Identity{Method: methodAnonymous}, nil
	}
	name, password, err := basicCredentials(r.Header.Values("Authorization"))
	if err != nil {
		return policy.Identity{}, a.unauthenticated(err.Error())
	}
	result, err := a.users.verify(name, password)
	if a.cfg.OnLogin != nil && result != "" {
		a.cfg.OnLogin(result)
	}
	switch {
	case err != nil:
		return policy.Identity{}, err
	case result == loginFailed:
		return policy.Identity{}, a.unauthenticated("user or password is wrong")
	}
	return policy.Identity{Name: name, Method: ModeHtpasswd}, nil
}

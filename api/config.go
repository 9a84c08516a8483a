package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Config says how a Server listens and what it serves. The zero value of a
// field means its default.
type Config struct {
	// Addr is host:port of the registry listener. Default 127.0.0.1:5000. Beyond loopback see Exposure.
	Addr string
	// Listener replaces Addr when set; Run closes it.
	Listener net.Listener
	// DebugAddr is host:port of the debug listener (health in detail, metrics, state). Default 127.0.0.1:5001; "none"
	// switches it off. It has no login: whoever reaches it reads project names and sizes.
	DebugAddr string
	// DebugListener replaces DebugAddr when set; Run closes it.
	DebugListener net.Listener
	// OnListen, when set, is called once by Run with the addresses of both listeners (the second nil without
	// one), before the first request is served.
	OnListen func(registry, debug net.Addr)

	// Handler serves /v2 and below. Required.
	Handler http.Handler
	// Mounts are further handlers of the registry listener by path prefix, such as "/pontoon.admin.v1.". The longest
	// prefix wins. Restrict them with AllowFrom: there is no login before them.
	Mounts map[string]http.Handler

	// Health answers the health endpoints. Required; NewHealth makes it.
	Health *Health
	// Metrics counts. Required; NewMetrics makes it.
	Metrics *Metrics
	// Log takes access lines, slow requests, panics and reloads. Default: discarded.
	Log *slog.Logger
	// AccessLogOff silences the line for each request (log.accesslog.disabled).
	AccessLogOff bool
	// SlowRequest is the time a request may spend in the node, waiting for the client not counted, before
	// it is logged with its phases. Default 2 s; negative: never.
	SlowRequest time.Duration

	// TLS makes the registry listener speak TLS; nil is plain HTTP (see Exposure).
	TLS *TLSConfig
	// Headers are set on every answer of the registry listener (http.headers), before the handler runs.
	Headers http.Header
	// Host is the URL that clients use, such as https://registry.example.com (http.host). Default empty: answers carry
	// relative locations.
	Host string
	// RelativeURLs keeps locations relative although Host is set (http.relativeurls).
	RelativeURLs bool
	// Prefix is http.prefix; anything but "" and "/" is refused.
	Prefix string
	// ProxyTrusted are the addresses that may say by a PROXY protocol v2 header whom they speak for. The header is
	// optional there, and not understood from anywhere else. Danger: whoever is in a range can claim any address.
	ProxyTrusted []netip.Prefix

	// HeaderTimeout bounds the PROXY header, the TLS handshake and a request's header, each. Default 10 s; 1 s to 5 min.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request. Default 2 min; 1 s to 1 h.
	IdleTimeout time.Duration
	// IdleBody is how long a client may send nothing of a body it owes, or take nothing of an answer. Default
	// 60 s; 1 s to 1 h. Too short cuts pushes over bad links.
	IdleBody time.Duration
	// RequestTimeout bounds a request that carries no layer (manifests, tags, lists), body included. Default
	// 60 s; 1 s to 1 h. A manifest of 4 MiB must fit through the slowest link in it.
	RequestTimeout time.Duration
	// MaxHeaderBytes bounds a request's header. Default 64 KiB; 4 KiB to 1 MiB.
	MaxHeaderBytes int
	// MaxConnections bounds the registry listener's connections; further ones wait in the kernel's queue. Default
	// 8192; 16 to 1,000,000. Each takes a file descriptor and some 20 KiB.
	MaxConnections int

	// DrainDelay is how long the server goes on accepting after its context ended, so that balancers see it
	// unready first. Default 5 s; negative is none; at most 5 min. Too short: a balancer deals requests to a closed port.
	DrainDelay time.Duration
	// DrainTimeout is how long requests in flight are awaited after that (http.draintimeout). Default
	// 60 s; at most 24 h. Longer requests are cut.
	DrainTimeout time.Duration
}

const (
	kib = 1 << 10
	mib = 1 << 20
	// debugOff is the DebugAddr that means no debug listener.
	debugOff = "none"
)

// withDefaults answers c with every zero field at its default.
func (c Config) withDefaults() Config {
	c.Addr = or(c.Addr, "127.0.0.1:5000")
	c.DebugAddr = or(c.DebugAddr, "127.0.0.1:5001")
	c.SlowRequest = or(c.SlowRequest, 2*time.Second)
	c.HeaderTimeout = or(c.HeaderTimeout, 10*time.Second)
	c.IdleTimeout = or(c.IdleTimeout, 2*time.Minute)
	c.IdleBody = or(c.IdleBody, time.Minute)
	c.RequestTimeout = or(c.RequestTimeout, time.Minute)
	c.MaxHeaderBytes = or(c.MaxHeaderBytes, 64*kib)
	c.MaxConnections = or(c.MaxConnections, 8192)
	c.DrainDelay = max(or(c.DrainDelay, 5*time.Second), 0)
	c.DrainTimeout = or(c.DrainTimeout, time.Minute)
	c.Log = or(c.Log, slog.New(slog.DiscardHandler))
	return c
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Base answers what locations begin with: empty for relative ones.
func (c Config) Base() string {
	if c.RelativeURLs {
		return ""
	}
	return strings.TrimSuffix(c.Host, "/")
}

// Validate names every field that is out of its bounds, by its key in the
// configuration file where it has one.
func (c Config) Validate() error {
	c = c.withDefaults()
	errs := []error{
		required("Handler", c.Handler != nil),
		required("Health", c.Health != nil),
		required("Metrics", c.Metrics != nil),
		c.validateAddrs(),
		c.validateHost(),
		c.validateHeaders(),
		between("http.headertimeout", c.HeaderTimeout, time.Second, 5*time.Minute),
		between("http.idletimeout", c.IdleTimeout, time.Second, time.Hour),
		between("http.idlebody", c.IdleBody, time.Second, time.Hour),
		between("http.requesttimeout", c.RequestTimeout, time.Second, time.Hour),
		between("http.maxheaderbytes", c.MaxHeaderBytes, 4*kib, mib),
		between("http.maxconnections", c.MaxConnections, 16, 1_000_000),
		between("http.draindelay", c.DrainDelay, 0, 5*time.Minute),
		between("http.draintimeout", c.DrainTimeout, 0, 24*time.Hour),
	}
	for prefix, h := range c.Mounts {
		if !strings.HasPrefix(prefix, "/") || strings.HasPrefix(prefix, "/v2") || prefix == "/" || h == nil {
			errs = append(errs, fmt.Errorf("mount %q: expected a handler and a path outside /v2 that begins with /", prefix))
		}
	}
	for _, p := range c.ProxyTrusted {
		if !p.IsValid() {
			errs = append(errs, errors.New("http.proxyprotocol: an address range is empty"))
		}
	}
	if c.TLS != nil {
		errs = append(errs, c.TLS.Validate())
	}
	return errors.Join(errs...)
}

func (c Config) validateAddrs() error {
	if c.Listener == nil {
		if _, _, err := net.SplitHostPort(c.Addr); err != nil {
			return fmt.Errorf("http.addr %q: expected host:port: %w", c.Addr, err)
		}
	}
	if c.DebugListener == nil && c.DebugAddr != debugOff {
		if _, _, err := net.SplitHostPort(c.DebugAddr); err != nil {
			return fmt.Errorf("http.debug.addr %q: expected host:port or none: %w", c.DebugAddr, err)
		}
	}
	return nil
}

func (c Config) validateHost() error {
	if c.Prefix != "" && c.Prefix != "/" {
		return fmt.Errorf("http.prefix %q: not supported, the registry is always served at /v2/; give it a host name of its own", c.Prefix)
	}
	if c.Host == "" {
		return nil
	}
	u, err := url.Parse(c.Host)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("http.host %q: expected http:// or https://, a host name, and nothing after it", c.Host)
	}
	return nil
}

// ownHeader names what the server sets itself; a configured value would break the
// framing of answers or contradict them.
func ownHeader(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Content-Length", "Transfer-Encoding", "Trailer", "Upgrade", "Keep-Alive", "Te", "Date",
		"Content-Type", "Content-Range", "Content-Encoding", "Location", "Etag", "Www-Authenticate",
		"Docker-Content-Digest", "Server-Timing", "X-Request-Id":
		return true
	}
	return false
}

func (c Config) validateHeaders() error {
	for name, values := range c.Headers {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("http.headers: %q is not a header name", name)
		}
		if ownHeader(name) {
			return fmt.Errorf("http.headers: %s is set by the registry itself", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("http.headers: the value of %s has control characters", name)
			}
		}
	}
	return nil
}

func required(field string, there bool) error {
	if there {
		return nil
	}
	return fmt.Errorf("api config: %s is required", field)
}

func between[T int | time.Duration](field string, v, lo, hi T) error {
	if v >= lo && v <= hi {
		return nil
	}
	return fmt.Errorf("%s: %v is not between %v and %v", field, v, lo, hi)
}

package api

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Server owns the registry listener and the debug listener of a node.
type Server struct {
	cfg      Config
	keys     *keyring // nil without TLS
	headers  http.Header
	health   http.Handler
	requests gate
	draining atomic.Bool
}

// New checks the config. It opens nothing and starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, headers: http.Header{}, health: publicHealth(cfg.Health)}
	for name, values := range cfg.Headers {
		// Clipped, because a handler that adds to the header would write into an array that all requests share.
		s.headers[http.CanonicalHeaderKey(name)] = slices.Clip(slices.Clone(values))
	}
	if cfg.TLS != nil {
		s.keys = newKeyring(*cfg.TLS, cfg.Log, cfg.Metrics)
	}
	return s, nil
}

// Reload reads the TLS files again, changed or not; on an error the previous ones stay in use. It is what
// SIGHUP does. Safe for concurrent use.
func (s *Server) Reload() error {
	if s.keys == nil {
		return nil
	}
	if err := s.keys.reload(); err != nil {
		return fmt.Errorf("reload TLS: %w", err)
	}
	return nil
}

// CertificateExpiry answers when the certificate from the configured files ends; zero without one.
func (s *Server) CertificateExpiry() time.Time {
	if s.keys == nil {
		return time.Time{}
	}
	return expiry(s.keys.current.Load())
}

// Run serves until ctx ends and the drain is over, or until a listener fails. It returns nil after a
// drain that lost nothing. Call it once.
func (s *Server) Run(ctx context.Context) error {
	registry, debug, err := s.open(ctx)
	if err != nil {
		return err
	}
	if s.cfg.OnListen != nil {
		s.cfg.OnListen(addrOf(registry), addrOf(debug))
	}
	// Requests outlive ctx: it begins the drain, whose end cuts them.
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	front, back := s.registryServer(base), s.debugServer(base)

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.serveRegistry(front, registry) })
	if debug != nil {
		g.Go(func() error {
			return served("debug listener", back.Serve(limit(debug, debugConnections, s.cfg.Metrics.debugConns)))
		})
	}
	if s.keys != nil {
		g.Go(func() error { s.keys.watch(gctx); return nil })
	}
	g.Go(func() error {
		<-gctx.Done()
		err := s.drain(base, front, cut)
		return errors.Join(err, s.endDebug(base, back))
	})
	return g.Wait()
}

// open reads the TLS files and opens both listeners, or neither.
func (s *Server) open(ctx context.Context) (registry, debug net.Listener, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, l := range []net.Listener{registry, debug, s.cfg.Listener, s.cfg.DebugListener} {
			if l != nil {
				_ = l.Close()
			}
		}
	}()
	if err = s.Reload(); err != nil {
		return nil, nil, err
	}
	if registry, err = listen(ctx, s.cfg.Listener, s.cfg.Addr, "http.addr"); err != nil {
		return nil, nil, err
	}
	if s.cfg.DebugListener != nil || s.cfg.DebugAddr != debugOff {
		debug, err = listen(ctx, s.cfg.DebugListener, s.cfg.DebugAddr, "http.debug.addr")
	}
	return registry, debug, err
}

func addrOf(l net.Listener) net.Addr {
	if l == nil {
		return nil
	}
	return l.Addr()
}

func (s *Server) registryServer(base context.Context) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true) // over TLS only
	return &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.MaxHeaderBytes,
		Protocols:         &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100,
			SendPingTimeout:      s.cfg.IdleBody, // a peer that is gone holds no streams
			WriteByteTimeout:     s.cfg.IdleBody,
			// Which suites are good enough is decided by http.tls.ciphersuites.
			PermitProhibitedCipherSuites: true,
		},
		ErrorLog: log.New(connLog{s.cfg.Log}, "", 0),
	}
}

func (s *Server) debugServer(base context.Context) *http.Server {
	return &http.Server{
		Handler:           s.DebugHandler(),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    16 * kib,
		ErrorLog:          log.New(connLog{s.cfg.Log}, "", 0),
	}
}

func (s *Server) serveRegistry(front *http.Server, l net.Listener) error {
	l = limit(trustProxies(l, s.cfg.ProxyTrusted, s.cfg.HeaderTimeout), s.cfg.MaxConnections, s.cfg.Metrics.conns)
	if s.keys == nil {
		return served("registry listener", front.Serve(l))
	}
	front.TLSConfig = s.keys.config()
	return served("registry listener", front.ServeTLS(l, "", ""))
}

func served(what string, err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

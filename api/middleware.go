package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"
)

// ErrDeadline is the cause when a request that carries no layer took longer than Config.RequestTimeout.
var ErrDeadline = errors.New("request took longer than http.requesttimeout")

// ErrDraining is the cause when a request is cut because the server ends.
var ErrDraining = errors.New("server is shutting down")

// ServeHTTP is what every request of the registry listener passes.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.enter()
	defer s.requests.leave()
	x := newExchange(r)
	res := &response{inner: w, ctl: http.NewResponseController(w), x: x, idle: s.cfg.IdleBody, closing: s.draining.Load}
	ctx := context.WithValue(r.Context(), exchangeKey{}, x)
	if !x.route.carriesLayers() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.cfg.RequestTimeout, ErrDeadline)
		defer cancel()
	}
	r = r.WithContext(ctx)
	s.boundBody(res, r)
	done := s.cfg.Metrics.request(x.route.handler, r.Method)
	s.setHeaders(w.Header(), x)

	defer func() {
		if p := recover(); p != nil {
			s.recovered(res, r, p)
		}
		res.finish()
		total := time.Since(x.begin)
		done(res.code(), total, res.read(), res.written)
		s.logRequest(r, res, total)
		if res.cut {
			panic(http.ErrAbortHandler) // net/http cuts the connection without a word
		}
	}()
	s.route(x.route, r.URL.Path).ServeHTTP(res, r)
}

func (s *Server) boundBody(res *response, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	res.body = &body{ReadCloser: r.Body, ctl: res.ctl, x: res.x, idle: s.cfg.IdleBody}
	if !res.x.route.carriesLayers() {
		res.body.until = res.x.begin.Add(s.cfg.RequestTimeout)
	}
	r.Body = res.body
}

func (w *response) read() int64 {
	if w.body == nil {
		return 0
	}
	return w.body.read.Load()
}

func (s *Server) setHeaders(h http.Header, x *exchange) {
	for name, values := range s.headers {
		h[name] = values
	}
	h[requestIDHeader] = []string{x.id}
}

// route answers the handler of a path. http.ServeMux is not used because it
// answers "//" and ".." with redirects, where a registry must answer with an error.
func (s *Server) route(rt route, path string) http.Handler {
	switch {
	case rt.handler == handlerHealth:
		return s.health
	case path == "/v2" || strings.HasPrefix(path, "/v2/"):
		return s.cfg.Handler
	}
	var best string
	for prefix := range s.cfg.Mounts {
		if strings.HasPrefix(path, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	if best != "" {
		return s.cfg.Mounts[best]
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "nothing here; the registry is at /v2/", http.StatusNotFound)
	})
}

// recovered answers for a handler that panicked (A3).
func (s *Server) recovered(res *response, r *http.Request, p any) {
	//nolint:errorlint // net/http compares the panic value itself
	if p == http.ErrAbortHandler {
		res.cut = true
		return
	}
	s.cfg.Metrics.panics.Inc()
	s.cfg.Log.ErrorContext(r.Context(), "request panicked", append(s.requestAttrs(r, res.x),
		"panic", fmt.Sprint(p), "stack", string(debug.Stack()))...)
	if res.status != 0 {
		res.cut = true
		return
	}
	h := res.Header()
	clear(h)
	s.setHeaders(h, res.x)
	h.Set("Content-Type", "application/json")
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("X-Content-Type-Options", "nosniff")
	res.WriteHeader(http.StatusInternalServerError)
	_, _ = fmt.Fprintf(res, `{"errors":[{"code":"UNKNOWN","message":"the registry failed on this request; its log has the cause","detail":{"request":%q}}]}`+"\n", res.x.id)
}

func (w *response) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// AllowFrom answers 404 to every client that is not in one of ranges: who may
// not come in need not know of the door. Clients of a unix socket are not addresses and are refused too.
func AllowFrom(ranges []netip.Prefix, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !contains(ranges, peer.Addr()) {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func contains(ranges []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range ranges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

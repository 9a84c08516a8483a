package api

import (
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// maxLogged bounds what a client can put into one field of a log line, in bytes.
const maxLogged = 1024

// logRequest writes the access line, under distribution's field names, and the slow line. Health checks are logged at
// debug level only: balancers ask every second.
func (s *Server) logRequest(r *http.Request, res *response, total time.Duration) {
	x, ctx := res.x, r.Context()
	level := slog.LevelInfo
	if x.route.handler == handlerHealth {
		level = slog.LevelDebug
	}
	if !s.cfg.AccessLogOff && s.cfg.Log.Enabled(ctx, level) {
		s.cfg.Log.Log(ctx, level, "response completed", append(s.requestAttrs(r, x),
			"http.response.status", res.code(),
			"http.response.duration", total.String(),
			"http.response.written", res.written)...)
	}
	own := x.own(total)
	if s.cfg.SlowRequest > 0 && own >= s.cfg.SlowRequest {
		s.cfg.Metrics.slow.WithLabelValues(x.route.handler).Inc()
		attrs := append(s.requestAttrs(r, x), "http.response.status", res.code(), "duration", total.String(), "own", own.String())
		for _, p := range x.timing.snapshot() {
			attrs = append(attrs, "phase."+p.name, p.total.String())
		}
		s.cfg.Log.WarnContext(ctx, "slow request", attrs...)
	}
}

func (s *Server) requestAttrs(r *http.Request, x *exchange) []any {
	attrs := make([]any, 0, 26)
	attrs = append(attrs,
		"http.request.id", x.id,
		"http.request.method", bounded(r.Method),
		"http.request.uri", bounded(loggedURI(r)),
		"http.request.remoteaddr", r.RemoteAddr,
		"http.request.useragent", bounded(r.UserAgent()),
		"http.request.host", bounded(r.Host))
	if x.route.name != "" {
		attrs = append(attrs, "vars.name", bounded(x.route.name))
	}
	if x.route.reference != "" {
		attrs = append(attrs, "vars.reference", bounded(x.route.reference))
	}
	if user := x.userName(); user != "" {
		attrs = append(attrs, "auth.user.name", user)
	}
	return attrs
}

// loggedURI is path and query only: an absolute request URI could carry a password before its host.
func loggedURI(r *http.Request) string {
	uri := r.URL.EscapedPath()
	if q := redactQuery(r.URL.RawQuery); q != "" {
		uri += "?" + q
	}
	return uri
}

func bounded(s string) string {
	if len(s) <= maxLogged {
		return s
	}
	return strings.ToValidUTF8(s[:maxLogged], "") + "…"
}

// connLog takes net/http's own complaints. Handshakes that fail are what scanners and half-open health checks cause.
type connLog struct{ log *slog.Logger }

func (c connLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	switch {
	case strings.Contains(text, "TLS handshake error"), strings.Contains(text, "URL query contains semicolon"):
		c.log.Debug("connection refused", "cause", bounded(text))
	default:
		c.log.Warn("http server", "cause", bounded(text))
	}
	return len(line), nil
}

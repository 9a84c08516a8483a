package api

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// LogConfig says how a node logs; keys are distribution's (log.level, log.formatter, log.fields).
type LogConfig struct {
	// Level is error, warn, info or debug. Default info.
	Level string
	// Formatter is text, json or logstash, which is json here. Default text.
	Formatter string
	// Fields stand on every line. At most 32.
	Fields map[string]string
}

const redacted = "[redacted]"

// NewLogger makes the node's logger. Values of attributes whose key is that of a secret are not
// written (A5), whoever logs them. It is safe for concurrent use if w takes whole lines (files do).
func NewLogger(w io.Writer, c LogConfig) (*slog.Logger, error) {
	level, err := logLevel(c.Level)
	if err != nil {
		return nil, err
	}
	if len(c.Fields) > 32 {
		return nil, fmt.Errorf("log.fields: %d fields, at most 32", len(c.Fields))
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: redactAttr}
	var h slog.Handler
	switch c.Formatter {
	case "", "text":
		h = slog.NewTextHandler(w, opts)
	case "json", "logstash":
		h = slog.NewJSONHandler(w, opts)
	default:
		return nil, fmt.Errorf("log.formatter %q: expected text, json or logstash", c.Formatter)
	}
	attrs := make([]slog.Attr, 0, len(c.Fields))
	for _, k := range slices.Sorted(maps.Keys(c.Fields)) {
		attrs = append(attrs, slog.String(k, c.Fields[k]))
	}
	return slog.New(h.WithAttrs(attrs)), nil
}

func logLevel(name string) (slog.Level, error) {
	switch strings.ToLower(name) {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("log.level %q: expected error, warn, info or debug", name)
}

func redactAttr(_ []string, a slog.Attr) slog.Attr {
	if secretName(a.Key) {
		return slog.String(a.Key, redacted)
	}
	return a
}

// secretName says whether a header, a query parameter or an attribute of this name holds a secret. Case
// and the separators - and _ do not matter.
func secretName(name string) bool {
	var buf [24]byte // longer than every name below
	n := 0
	for i := 0; i < len(name) && n < len(buf); i++ {
		c := name[i]
		if c == '-' || c == '_' {
			continue
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[n] = c
		n++
	}
	switch short := string(buf[:n]); short {
	case "authorization", "proxyauthorization", "cookie", "setcookie", "account", "password", "passwd", "secret",
		"token", "accesstoken", "refreshtoken", "idtoken", "clientsecret", "apikey", "signature", "sig":
		return true
	default:
		return strings.HasPrefix(short, "xamz")
	}
}

// redactQuery answers a raw query with the values of secrets replaced, order and all else kept.
func redactQuery(raw string) string {
	if raw == "" {
		return ""
	}
	parts := strings.Split(raw, "&")
	for i, part := range parts {
		name, _, valued := strings.Cut(part, "=")
		if valued && (secretName(name) || strings.ContainsRune(name, '%')) {
			parts[i] = name + "=" + redacted
		}
	}
	return strings.Join(parts, "&")
}

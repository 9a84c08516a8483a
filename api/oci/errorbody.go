package oci

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// errorItem is one error of an OCI error body.
type errorItem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

// writeError answers with err. An error after the header was sent can only cut
// the connection, which net/http does because bytes of Content-Length are missing.
func (c *call) writeError(err error) {
	a := answerOf(err)
	c.report(a, err)
	if c.sent {
		return
	}
	header := c.w.Header()
	for _, name := range []string{"Content-Length", "Content-Type", "Content-Range", "ETag", "Accept-Ranges"} {
		if a.status != http.StatusRequestedRangeNotSatisfiable || name != "Content-Range" {
			header.Del(name)
		}
	}
	c.errorHeaders(a, err)
	body, jerr := json.Marshal(map[string][]errorItem{"errors": errorItems(a, err)})
	if jerr != nil {
		body = []byte(`{"errors":[]}`)
	}
	header.Set("Content-Type", "application/json; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	c.sent = true
	c.w.WriteHeader(a.status)
	_, _ = c.w.Write(body) // the client may have gone; there is nobody left to tell
}

func (c *call) errorHeaders(a answer, err error) {
	header := c.w.Header()
	switch a.status {
	case http.StatusUnauthorized:
		var offers interface{ Challenge() []string }
		if errors.As(err, &offers) {
			for _, value := range offers.Challenge() {
				header.Add("WWW-Authenticate", value)
			}
		}
	case http.StatusPreconditionFailed:
		var e *meta.Error
		if errors.As(err, &e) && e.Current != "" {
			header.Set("ETag", `"`+e.Current+`"`)
			header.Set(headerDigest, e.Current)
		}
	case http.StatusMethodNotAllowed:
		if header.Get("Allow") == "" {
			header.Set("Allow", "GET, HEAD")
		}
	case http.StatusServiceUnavailable:
		header.Set("Retry-After", "1")
	case http.StatusRequestTimeout:
		header.Set("Connection", "close")
	}
}

// errorItems tells what clients may know: refusals in full, anything else by its kind only.
func errorItems(a answer, err error) []errorItem {
	var e *meta.Error
	if !errors.As(err, &e) {
		message := http.StatusText(a.status)
		if errors.Is(err, errStalled) || errors.Is(err, errTakenOver) {
			message = err.Error()
		}
		return []errorItem{{Code: a.code, Message: strings.ToLower(message)}}
	}
	switch {
	case a.code == "MANIFEST_BLOB_UNKNOWN" && len(e.Names) > 0:
		items := make([]errorItem, 0, len(e.Names))
		for _, name := range e.Names {
			items = append(items, errorItem{a.code, e.Message, map[string]string{"digest": name}})
		}
		return items
	case e.Kind == metav1.Kind_KIND_PRECONDITION:
		return []errorItem{{a.code, e.Message, map[string]string{"current": e.Current}}}
	case e.Kind == metav1.Kind_KIND_UNSUPPORTED && len(e.Names) > 0:
		return []errorItem{{a.code, e.Message, map[string][]string{"users": e.Names}}}
	}
	return []errorItem{{Code: a.code, Message: e.Message}}
}

// report logs what the client is not told.
func (c *call) report(a answer, err error) {
	if a.status < http.StatusInternalServerError && a.status != statusClientClosed {
		return
	}
	attrs := []any{"error", err, "status", a.status, "method", c.r.Method, "path", clip(c.r.URL.Path), "request", c.RequestID(c.r.Context())}
	if a.status == http.StatusInternalServerError {
		c.Log.ErrorContext(c.r.Context(), "request failed", attrs...)
		return
	}
	c.Log.InfoContext(c.r.Context(), "request ended early", attrs...)
}

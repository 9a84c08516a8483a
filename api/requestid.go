package api

import (
	"crypto/rand"
	"net/http"
)

// maxRequestID bounds a request id in bytes: it goes into every log line and command envelope.
const maxRequestID = 128

// requestIDHeader carries the id in both directions.
const requestIDHeader = "X-Request-Id"

// requestID answers the id that the client chose, if it is fit for logs and headers, else a new one.
func requestID(h http.Header) string {
	if id := h.Get(requestIDHeader); validRequestID(id) {
		return id
	}
	return rand.Text()
}

// validRequestID: 1 to 128 letters, digits and - _ . : / + = @, which covers UUIDs, ULIDs, W3C trace
// ids and what the large balancers send, and nothing that a log or a header would have to escape.
func validRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '_', c == '.', c == ':', c == '/', c == '+', c == '=', c == '@':
		default:
			return false
		}
	}
	return true
}

package oci

import (
	"strconv"
	"strings"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// span is a part of a blob: length bytes from offset.
type span struct {
	offset, length int64
}

// verdict is what a Range header means for a blob.
type verdict int

const (
	whole         verdict = iota // no range, several, or of another unit: serve all (RFC 9110, 14.2)
	partial                      // serve the span
	unsatisfiable                // 416
)

// parseRange reads a Range header for size bytes. One range is served; several
// are answered with the whole, as RFC 9110 allows. A malformed range of bytes is
// unsatisfiable: the client that sent it must not take 200 for the part it meant.
func parseRange(header string, size int64) (span, verdict) {
	unit, spec, ok := strings.Cut(header, "=")
	if header == "" || (ok && !strings.EqualFold(strings.TrimSpace(unit), "bytes")) {
		return span{}, whole
	}
	if !ok {
		return span{}, unsatisfiable
	}
	if strings.Contains(spec, ",") {
		return span{}, whole
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return span{}, unsatisfiable
	}
	if first == "" {
		return suffix(last, size)
	}
	start, ok := decimal(first)
	if !ok || start >= size {
		return span{}, unsatisfiable
	}
	if last == "" {
		return span{start, size - start}, partial
	}
	end, ok := decimal(last)
	if !ok || end < start {
		return span{}, unsatisfiable
	}
	return span{start, min(end, size-1) - start + 1}, partial
}

// suffix is the last n bytes.
func suffix(digits string, size int64) (span, verdict) {
	n, ok := decimal(digits)
	if !ok || n == 0 || size == 0 {
		return span{}, unsatisfiable
	}
	n = min(n, size)
	return span{size - n, n}, partial
}

// decimal reads digits only; what overflows is the largest number, which is beyond every size.
func decimal(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	for _, b := range []byte(s) {
		if b < '0' || b > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1, true
	}
	return n, true
}

// parseContentRange reads the Content-Range of a chunk: "start-end" as the
// distribution specification has it, or "bytes start-end", "bytes start-end/total" as HTTP has it. No
// header is ok = false. The end is inclusive and must fit a file size.
func parseContentRange(header string) (s span, ok bool, err error) {
	if header == "" {
		return span{}, false, nil
	}
	spec := strings.TrimPrefix(strings.TrimSpace(header), "bytes ")
	spec, _, _ = strings.Cut(spec, "/")
	first, last, found := strings.Cut(strings.TrimSpace(spec), "-")
	start, ok1 := decimal(first)
	end, ok2 := decimal(last)
	const bound = 1 << 62
	if !found || !ok1 || !ok2 || end < start || end >= bound {
		return span{}, false, invalid(metav1.Noun_NOUN_RANGE,
			"Content-Range: got %q, expected <start>-<end>, both inclusive and start not above end", clip(header))
	}
	return span{start, end - start + 1}, true, nil
}

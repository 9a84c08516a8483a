package blobs

import "fmt"

// Numbers deals out the part numbers of one attempt within what the ledger
// reserved for it (B6, R-A3): no two attempts ever use the same number of one
// multipart upload, however late the calls of the earlier one land. Not safe for concurrent use.
type Numbers struct {
	next  int32
	limit int32
	saved int32
}

// NewNumbers begins at a.PartBase if the attempt continues a multipart upload,
// at 1 otherwise; reserve is what the Store's Reserve answers for the attempt.
func NewNumbers(a Attempt, reserve int32) (Numbers, error) {
	if a.From.MultipartID == "" {
		return Numbers{next: 1, limit: reserve}, nil
	}
	for _, p := range a.From.Parts {
		if a.PartBase <= p.Number {
			return Numbers{}, fmt.Errorf("part base %d: must be above part %d, which the upload has", a.PartBase, p.Number)
		}
	}
	if a.PartBase < 1 {
		return Numbers{}, fmt.Errorf("part base %d: must be at least 1", a.PartBase)
	}
	return Numbers{next: a.PartBase, limit: a.PartBase - 1 + reserve}, nil
}

// Take answers the next number. It is an error, ErrUnavailable, when all
// reserved ones are in use: the saves did not keep up.
func (n *Numbers) Take() (int32, error) {
	if n.next > n.limit {
		return 0, fmt.Errorf("part %d is beyond the %d that may be unsaved: %w", n.next, MaxUnsaved, ErrUnavailable)
	}
	n.next++
	return n.next - 1, nil
}

// Saved is called when a Save answers, with the highest number in it. Only the
// save *before* it is known to be accepted (otherwise the caller would have
// abandoned the attempt), so only that one moves the limit.
func (n *Numbers) Saved(highest int32) {
	if n.saved > 0 {
		n.limit = max(n.limit, n.saved+MaxUnsaved)
	}
	n.saved = max(n.saved, highest)
}

// Next answers the first number that is not in use.
func (n *Numbers) Next() int32 { return n.next }

// Beyond answers the first number that the attempt cannot use before another save.
func (n *Numbers) Beyond() int32 { return n.limit + 1 }

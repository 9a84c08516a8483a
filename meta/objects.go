package meta

import (
	"strings"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The life of a storage key (R-C3). A key in the range is never given to
// another upload or digest (G5); what is not in the range, the ledger never knew.
//
//	(none) ── save ──► uploading ── commit ──► live ── unneeded, healed by another ──► condemned ── swept ──► (none)
//	   └───── commit ────────┼──────────────────▲                                         ▲
//	                         └── dropped, cancelled, expired, lost a race ────────────────┘
//
// Once it is forgotten, nothing can name a key again: its upload ended, or dropped it, at least a delay ago.

// maxKey bounds a storage key, in bytes (S3's own bound).
const maxKey = 1024

func (r *rows) object(store, key string) *metav1.Object {
	row := &metav1.Object{}
	if !r.read(objectKey(r.key[:0], store, key), row) {
		return nil
	}
	return row
}

// claim refuses a key that is not the upload's own, that another attempt than
// the one named may have written (B6), or that was used before (G5). A commit names no attempt.
func (t *txn) claim(store, id, attempt, key string) error {
	prefix := t.system.GetEpoch() + "/" + id + "/"
	if len(key) <= len(prefix) || len(key) > maxKey || !strings.HasPrefix(key, prefix) || hasNUL(key) ||
		attempt != "" && !isOf(attempt, key[len(prefix):]) {
		return invalid(metav1.Noun_NOUN_STORE, "storage key: got %q, expected %s<attempt>[.<n>] of this attempt, at most %d bytes", clip(key), prefix, maxKey)
	}
	switch s := t.object(store, key).GetState().(type) {
	case nil:
		return nil
	case *metav1.Object_Uploading:
		if s.Uploading.GetUpload() == id {
			return nil
		}
	}
	return conflict(metav1.Noun_NOUN_STORE, "storage key %s: was used before", clip(key))
}

// isOf says whether the last element of a key is the attempt's: its name, or that and a number.
func isOf(attempt, element string) bool {
	rest, ok := strings.CutPrefix(element, attempt)
	return ok && (rest == "" || rest[0] == '.')
}

func (t *txn) putUploading(store, key, id string) {
	t.put(objectKey(nil, store, key), &metav1.Object{State: &metav1.Object_Uploading{Uploading: &metav1.Uploading{Upload: id}}})
}

func (t *txn) putLive(store, key string, d Digest) {
	t.put(objectKey(nil, store, key), &metav1.Object{State: &metav1.Object_Live{Live: &metav1.Live{Digest: d.Bytes()}}})
}

// condemn hands a key to the sweep: deleted no sooner than the delay says, and
// only when no backup can name it (G6). multipart is the upload to abort under it, if any.
func (t *txn) condemn(store, key string, size int64, multipart string) {
	row := &metav1.Condemned{Index: t.index, NotBefore: t.clock + t.settings().GetDeleteDelay(), Size: size}
	if old := t.object(store, key).GetCondemned(); old != nil {
		row.Size = max(size, old.GetSize())
		row.MultipartIds = old.GetMultipartIds()
	}
	if multipart != "" {
		row.MultipartIds = append(row.MultipartIds, multipart)
	}
	t.put(objectKey(nil, store, key), &metav1.Object{State: &metav1.Object_Condemned{Condemned: row}})
}

// Object is what the ledger knows of a storage key.
func (v *View) Object(store, key string) (*metav1.Object, error) {
	row := v.object(store, key)
	return answer(v, row, row != nil, metav1.Noun_NOUN_STORE, "storage key %s: not in the ledger", clip(key))
}

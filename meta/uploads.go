package meta

import (
	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The life of an upload. A revision is the log index of the last step that was
// accepted; each step names the one it saw, so that of two writers one is refused.
//
//	(none) ── open ──► open ── take, save ──► open (revision and expiry rise)
//	                     ├── commit ──► committed ─┐
//	                     ├── cancel ──► cancelled ─┼── until expiry, then ──► (none)
//	                     └── expire ──► expired ───┘
//
// An ended upload keeps its outcome so that a repeated request is answered as
// the first was (R-A5). Past its expiry an upload counts as unknown, whether or not the duty has come by.

// Bounds of an upload.
const (
	maxParts     = 10_000
	maxPieces    = 10_000
	maxHashState = 1 << 10
	idLength     = 32
)

func (r *rows) upload(id string) *metav1.Upload {
	row := &metav1.Upload{}
	if !r.read(nameKey(r.key[:0], rangeUpload, id), row) {
		return nil
	}
	return row
}

// openUpload makes an upload known before its bytes exist (G1). An id that was
// ever seen is refused, as long as anything remembers it.
func (t *txn) openUpload(c *metav1.OpenUpload) (*metav1.Result, error) {
	if !isUploadID(c.GetId()) {
		return nil, invalid(metav1.Noun_NOUN_UPLOAD, "upload id: got %q, expected %d lowercase hexadecimal digits", clip(c.GetId()), idLength)
	}
	if c.GetAlgorithm() > 0xff || algorithmOf(byte(c.GetAlgorithm())) == "" {
		return nil, invalid(metav1.Noun_NOUN_DIGEST, "digest algorithm: got byte %d, expected that of sha256, sha512 or sha384", c.GetAlgorithm())
	}
	if err := checkName(metav1.Noun_NOUN_STORE, "store", c.GetStore()); err != nil {
		return nil, err
	}
	if err := t.pushable(c.GetRepository()); err != nil {
		return nil, err
	}
	seen := append(nameKey(nil, rangeObject, c.GetStore()), t.system.GetEpoch()+"/"+c.GetId()+"/"...)
	if t.upload(c.GetId()) != nil || t.any(seen) {
		return nil, conflict(metav1.Noun_NOUN_UPLOAD, "upload %s: the id was used before", c.GetId())
	}
	u := &metav1.Upload{
		Repository: c.GetRepository(), Store: c.GetStore(), Opened: t.stamp(),
		Algorithm: c.GetAlgorithm(), NextPart: 1, PartBase: 1,
	}
	t.countUploads(1)
	return t.stepped(c.GetId(), u), nil
}

// takeUpload ends every earlier attempt: their revision is stale from now on,
// and the part numbers that they may have used lie below the new base (B6, R-A3).
func (t *txn) takeUpload(c *metav1.TakeUpload) (*metav1.Result, error) {
	if err := checkName(metav1.Noun_NOUN_UPLOAD, "attempt", c.GetAttempt()); err != nil {
		return nil, err
	}
	u, err := t.uploadAt(c.GetId(), c.GetRepository(), c.GetRevision())
	if err != nil {
		return nil, err
	}
	if c.GetAttempt() == u.GetAttempt() {
		return nil, conflict(metav1.Noun_NOUN_UPLOAD, "upload %s: attempt %s writes it already", c.GetId(), clip(c.GetAttempt()))
	}
	if err := u.reserve(takenBase(u.Upload), c.GetReserve()); err != nil {
		return nil, err
	}
	u.Attempt = c.GetAttempt()
	return t.stepped(c.GetId(), u.Upload), nil
}

// takenBase answers the first part number that nobody can have used. Whoever
// finished at the revision that was used next_part itself for a tail. Without a multipart upload
// that others know of there is nothing to share: so an upload may come in any number of chunks on a store that has no parts.
func takenBase(u *metav1.Upload) int32 {
	switch {
	case u.GetMultipartId() == "":
		return 1
	case len(u.GetPieces()) > 0:
		return u.GetNextPart() + 1
	}
	return u.GetNextPart()
}

// cancelUpload ends an upload and hands everything it stored to the sweep (R-A6).
func (t *txn) cancelUpload(c *metav1.CancelUpload) (*metav1.Result, error) {
	u, err := t.uploadOf(c.GetId(), c.GetRepository())
	if err != nil {
		return nil, err
	}
	switch u.GetOutcome() {
	case metav1.UploadOutcome_UPLOAD_OUTCOME_CANCELLED:
		return nil, nil
	case metav1.UploadOutcome_UPLOAD_OUTCOME_UNSPECIFIED:
		t.endUpload(c.GetId(), u, metav1.UploadOutcome_UPLOAD_OUTCOME_CANCELLED, ended{})
		return nil, nil
	}
	return nil, noUpload(c.GetId())
}

// expireUploads ends uploads whose time is over by the cluster's clock (C3:
// Apply decides again), and forgets the outcomes of those that ended before.
func (t *txn) expireUploads(c *metav1.ExpireUploads) (*metav1.Result, error) {
	if err := bounded("uploads", len(c.GetIds())); err != nil {
		return nil, err
	}
	var n int64
	for _, id := range c.GetIds() {
		u := t.upload(id)
		if u == nil || t.clock < u.GetExpires() {
			continue
		}
		n++
		if u.GetOutcome() == metav1.UploadOutcome_UPLOAD_OUTCOME_UNSPECIFIED {
			t.endUpload(id, u, metav1.UploadOutcome_UPLOAD_OUTCOME_EXPIRED, ended{})
			continue
		}
		t.del(nameKey(nil, rangeUpload, id))
		t.countUploads(-1)
	}
	return counted(n, false), nil
}

// uploadStep is an upload's row while a step changes it.
type uploadStep struct{ *metav1.Upload }

// reserve gives the attempt its part numbers: base, and n more that it may use before its next save.
func (u uploadStep) reserve(base, n int32) error {
	if n < 0 || n > maxParts || base > maxParts || base+n > maxParts {
		return tooLarge(metav1.Noun_NOUN_UPLOAD, "upload: part numbers from %d with %d reserved, at most %d exist", base, n, maxParts)
	}
	u.PartBase, u.NextPart = base, base+n
	return nil
}

// uploadOf looks up an upload of the repository that has not expired; one that
// ended by expiry counts as unknown too.
func (t *txn) uploadOf(id, repository string) (*metav1.Upload, error) {
	u := t.upload(id)
	if u == nil || u.GetRepository() != repository || t.clock >= u.GetExpires() ||
		u.GetOutcome() == metav1.UploadOutcome_UPLOAD_OUTCOME_EXPIRED {
		return nil, noUpload(id)
	}
	return u, nil
}

// uploadAt looks up an upload that is open at the expected revision (G2).
func (t *txn) uploadAt(id, repository string, revision uint64) (uploadStep, error) {
	u, err := t.uploadOf(id, repository)
	if err != nil {
		return uploadStep{}, err
	}
	if u.GetOutcome() != metav1.UploadOutcome_UPLOAD_OUTCOME_UNSPECIFIED {
		return uploadStep{}, noUpload(id)
	}
	if u.GetRevision() != revision {
		return uploadStep{}, conflict(metav1.Noun_NOUN_UPLOAD,
			"upload %s: another request has written it: expected revision %d, it is %d", id, revision, u.GetRevision())
	}
	if err := t.pushable(repository); err != nil {
		return uploadStep{}, err
	}
	return uploadStep{u}, nil
}

func noUpload(id string) *Error {
	return unknown(metav1.Noun_NOUN_UPLOAD, "upload %s: is not open in this repository", clip(id))
}

// stepped writes the row of an accepted step.
func (t *txn) stepped(id string, u *metav1.Upload) *metav1.Result {
	u.Revision = t.index
	u.Expires = t.clock + t.settings().GetUploadLifetime()
	t.put(nameKey(nil, rangeUpload, id), u)
	return &metav1.Result{Value: &metav1.Result_Upload{Upload: &metav1.UploadResult{Revision: t.index, PartBase: u.GetPartBase()}}}
}

// ended says what an upload became: the digest, size and key that were
// committed. kept is whether the key lives on, completed whether the multipart upload under it is no more.
type ended struct {
	digest          Digest
	size            int64
	key             string
	kept, completed bool
}

// endUpload condemns all keys of the upload but the kept one and leaves the outcome.
func (t *txn) endUpload(id string, u *metav1.Upload, outcome metav1.UploadOutcome, how ended) {
	lives := func(key string) bool { return how.kept && key == how.key }
	for _, p := range u.GetPieces() {
		if !lives(p.GetKey()) {
			t.condemn(u.GetStore(), p.GetKey(), p.GetSize(), "")
		}
	}
	if key := u.GetMultipartKey(); key != "" && !lives(key) {
		multipart := u.GetMultipartId()
		if how.completed && key == how.key {
			multipart = ""
		}
		t.condemn(u.GetStore(), key, partsSize(u.GetParts()), multipart)
	}
	row := &metav1.Upload{
		Repository: u.GetRepository(), Store: u.GetStore(), Opened: u.GetOpened(), Attempt: u.GetAttempt(),
		Outcome: outcome, Digest: how.digest.Bytes(), Size: how.size,
	}
	t.stepped(id, row)
}

func partsSize(parts []*metav1.Part) (n int64) {
	for _, p := range parts {
		n += p.GetSize()
	}
	return n
}

func isUploadID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == idLength
}

// countUploads keeps how many upload rows there are.
func (t *txn) countUploads(n int64) {
	row := proto.CloneOf(t.system)
	row.Uploads += n
	t.putSystem(row)
}

// Upload looks an upload up, ended ones (outcome set) included until they expire.
func (v *View) Upload(id string) (*metav1.Upload, error) {
	u := v.upload(id)
	return answer(v, u, u != nil && v.ClusterTime() < u.GetExpires(), metav1.Noun_NOUN_UPLOAD, "upload %s: is not there", clip(id))
}

// UploadItem is an upload with its id.
type UploadItem struct {
	ID string
	*metav1.Upload
}

// Uploads lists uploads in id order above after, expired ones included.
func (v *View) Uploads(after string, n int) (rows []UploadItem, more bool, err error) {
	prefix := oneRow(nil, rangeUpload)
	return list(&v.rows, prefix, afterName(prefix, after), n, func(rest, value []byte) (UploadItem, bool) {
		it := UploadItem{Upload: &metav1.Upload{}}
		it.ID, _ = cutName(rest)
		return it, v.decode(rest, value, it.Upload)
	})
}

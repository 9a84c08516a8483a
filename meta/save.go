package meta

import (
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// saveUpload records what is durable (B3, B4). It is accepted when the upload is
// open at the revision that the attempt saw, and what it adds was written by that attempt alone (B6).
func (t *txn) saveUpload(c *metav1.SaveUpload) (*metav1.Result, error) {
	if err := checkSave(c); err != nil {
		return nil, err
	}
	u, err := t.uploadAt(c.GetId(), c.GetRepository(), c.GetRevision())
	if err != nil {
		return nil, err
	}
	if u.GetOffset() > 0 && c.GetAttempt() != u.GetAttempt() {
		return nil, conflict(metav1.Noun_NOUN_UPLOAD, "upload %s: attempt %s continues at %d without having taken it",
			c.GetId(), clip(c.GetAttempt()), u.GetOffset())
	}
	if c.GetOffset() < u.GetOffset() {
		return nil, invalid(metav1.Noun_NOUN_RANGE, "upload %s: got offset %d, %d bytes are saved already", c.GetId(), c.GetOffset(), u.GetOffset())
	}
	if err := t.saveMultipart(u, c); err != nil {
		return nil, err
	}
	if err := t.savePieces(u, c); err != nil {
		return nil, err
	}
	if sum := partsSize(u.GetParts()) + piecesSize(u.GetPieces()); sum != c.GetOffset() {
		return nil, invalid(metav1.Noun_NOUN_RANGE, "upload %s: parts and pieces hold %d bytes, the offset is %d", c.GetId(), sum, c.GetOffset())
	}
	u.Attempt, u.Offset, u.HashState = c.GetAttempt(), c.GetOffset(), c.GetHashState()
	return t.stepped(c.GetId(), u.Upload), nil
}

func checkSave(c *metav1.SaveUpload) error {
	if err := checkName(metav1.Noun_NOUN_UPLOAD, "attempt", c.GetAttempt()); err != nil {
		return err
	}
	if n := len(c.GetHashState()); n > maxHashState {
		return tooLarge(metav1.Noun_NOUN_UPLOAD, "upload: hash state: got %d bytes, at most %d are accepted", n, maxHashState)
	}
	if n := len(c.GetMultipartId()); n > maxText {
		return tooLarge(metav1.Noun_NOUN_UPLOAD, "upload: multipart id: got %d bytes, at most %d are accepted", n, maxText)
	}
	if (c.GetMultipartId() == "") != (c.GetMultipartKey() == "") {
		return invalid(metav1.Noun_NOUN_UPLOAD, "upload: multipart id and key: expected both or none")
	}
	if c.GetMultipartId() == "" && len(c.GetParts()) > 0 {
		return invalid(metav1.Noun_NOUN_UPLOAD, "upload: got %d parts of no multipart upload", len(c.GetParts()))
	}
	if n := len(c.GetParts()); n > maxParts {
		return tooLarge(metav1.Noun_NOUN_UPLOAD, "upload: got %d parts, at most %d are accepted", n, maxParts)
	}
	if n := len(c.GetPieces()); n > maxPieces {
		return tooLarge(metav1.Noun_NOUN_UPLOAD, "upload: got %d pieces, at most %d are accepted", n, maxPieces)
	}
	return nil
}

// saveMultipart appends parts to the row, and moves the part numbers on.
func (t *txn) saveMultipart(u uploadStep, c *metav1.SaveUpload) error {
	same := c.GetMultipartKey() == u.GetMultipartKey() && c.GetMultipartId() == u.GetMultipartId()
	// A multipart upload of the attempt's own is written by nobody else: any number will do.
	low, high := int32(1), int32(maxParts+1)
	if same && c.GetMultipartId() != "" {
		low, high = u.GetPartBase(), u.GetNextPart()
	}
	if !same {
		if len(u.GetParts()) > 0 {
			return invalid(metav1.Noun_NOUN_UPLOAD, "upload %s: its parts belong to another multipart upload", c.GetId())
		}
		if err := t.replaceMultipart(u, c); err != nil {
			return err
		}
	}
	highest, err := appendParts(u, c.GetParts(), low, high)
	if err != nil {
		return err
	}
	base := u.GetPartBase()
	if !same {
		base = 1
	}
	next := max(base, highest+1)
	if err := u.reserve(next, c.GetReserve()); err != nil {
		return err
	}
	u.PartBase = base
	return nil
}

// replaceMultipart gives the row another multipart upload while it has no parts.
func (t *txn) replaceMultipart(u uploadStep, c *metav1.SaveUpload) error {
	if key := u.GetMultipartKey(); key != "" && key != c.GetMultipartKey() {
		t.condemn(u.GetStore(), key, 0, u.GetMultipartId())
	} else if key != "" {
		// The same attempt opened a second one under its key: nobody else knows the first.
		return invalid(metav1.Noun_NOUN_UPLOAD, "upload %s: storage key %s has another multipart upload already", c.GetId(), clip(key))
	}
	u.MultipartKey, u.MultipartId = c.GetMultipartKey(), c.GetMultipartId()
	if u.GetMultipartKey() == "" {
		return nil
	}
	if err := t.claim(u.GetStore(), c.GetId(), c.GetAttempt(), u.GetMultipartKey()); err != nil {
		return err
	}
	t.putUploading(u.GetStore(), u.GetMultipartKey(), c.GetId())
	return nil
}

// appendParts adds parts with numbers in [low, high) that rise above all before
// them, and answers the highest number of the row.
func appendParts(u uploadStep, parts []*metav1.Part, low, high int32) (highest int32, err error) {
	if n := len(u.GetParts()); n > 0 {
		highest = u.GetParts()[n-1].GetNumber()
	}
	for _, p := range parts {
		n := p.GetNumber()
		if n > maxParts {
			return 0, tooLarge(metav1.Noun_NOUN_UPLOAD, "upload: got part number %d, at most %d exist", n, maxParts)
		}
		if n <= highest || n < low || n >= high {
			return 0, invalid(metav1.Noun_NOUN_UPLOAD, "upload: got part number %d, expected one above %d and in [%d, %d), which this attempt may use",
				n, highest, low, high)
		}
		if p.GetSize() < 0 || len(p.GetEtag()) > maxText || len(p.GetChecksum()) > maxText {
			return 0, invalid(metav1.Noun_NOUN_UPLOAD, "upload: part %d: size, ETag or checksum out of bounds", n)
		}
		highest = n
	}
	if n := len(u.GetParts()) + len(parts); n > maxParts {
		return 0, tooLarge(metav1.Noun_NOUN_UPLOAD, "upload: got %d parts, at most %d exist", n, maxParts)
	}
	u.Parts = append(u.Parts, parts...)
	return highest, nil
}

// savePieces replaces the plain objects: those that are gone are condemned.
func (t *txn) savePieces(u uploadStep, c *metav1.SaveUpload) error {
	known := make(map[string]*metav1.Piece, len(u.GetPieces()))
	for _, p := range u.GetPieces() {
		known[p.GetKey()] = p
	}
	seen := make(map[string]bool, len(c.GetPieces()))
	for _, p := range c.GetPieces() {
		key := p.GetKey()
		if seen[key] || key == u.GetMultipartKey() || p.GetSize() < 0 {
			return invalid(metav1.Noun_NOUN_UPLOAD, "upload: piece %s: named twice, or of negative size", clip(key))
		}
		seen[key] = true
		if old := known[key]; old != nil {
			if err := t.grown(u, c, old, p); err != nil {
				return err
			}
			continue
		}
		if err := t.claim(u.GetStore(), c.GetId(), c.GetAttempt(), key); err != nil {
			return err
		}
		t.putUploading(u.GetStore(), key, c.GetId())
	}
	for _, p := range u.GetPieces() {
		if !seen[p.GetKey()] {
			t.condemn(u.GetStore(), p.GetKey(), p.GetSize(), "")
		}
	}
	u.Pieces = c.GetPieces()
	return nil
}

// grown refuses a piece that is not what was saved: only the attempt that
// writes it may add to it, at its end (B6).
func (t *txn) grown(u uploadStep, c *metav1.SaveUpload, old, p *metav1.Piece) error {
	if old.GetSize() == p.GetSize() && old.GetCrc32C() == p.GetCrc32C() {
		return nil
	}
	if p.GetSize() <= old.GetSize() {
		return invalid(metav1.Noun_NOUN_UPLOAD, "upload: piece %s: is not what was saved", clip(p.GetKey()))
	}
	return t.claim(u.GetStore(), c.GetId(), c.GetAttempt(), p.GetKey())
}

func piecesSize(pieces []*metav1.Piece) (n int64) {
	for _, p := range pieces {
		n += p.GetSize()
	}
	return n
}

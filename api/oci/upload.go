package oci

import (
	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// openUpload is an upload as one View saw it.
type openUpload struct {
	id    string
	epoch string
	row   *metav1.Upload
}

// lookUpload reads the upload of this request. One of another repository is
// unknown, as is an id that cannot be one.
func (c *call) lookUpload() (*openUpload, error) {
	u := &openUpload{id: c.ref}
	notHere := unknown(metav1.Noun_NOUN_UPLOAD, "upload: got %q, expected an open upload of %s", clip(c.ref), c.name)
	if !isUploadID(c.ref) {
		return nil, notHere
	}
	err := c.view(false, func(v *meta.View) error {
		row, err := v.Upload(c.ref)
		if err != nil {
			return err
		}
		system, err := v.System()
		u.row, u.epoch = row, system.GetEpoch()
		return err
	})
	if err != nil {
		return nil, err
	}
	if u.row.GetRepository() != c.name {
		return nil, notHere
	}
	if u.row.GetStore() != c.StoreName {
		return nil, meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_STORE,
			"upload %s is in store %q, this node has %q", c.ref, u.row.GetStore(), c.StoreName)
	}
	return u, nil
}

func isUploadID(id string) bool {
	if len(id) != 32 {
		return false
	}
	for _, b := range []byte(id) {
		if (b < '0' || b > '9') && (b < 'a' || b > 'f') {
			return false
		}
	}
	return true
}

// progressOf answers what the ledger has of an upload, as the store speaks of it.
func progressOf(row *metav1.Upload) blobs.Progress {
	p := blobs.Progress{
		Size: row.GetOffset(), MultipartKey: row.GetMultipartKey(), MultipartID: row.GetMultipartId(), Next: row.GetNextPart(),
	}
	for _, part := range row.GetParts() {
		p.Parts = append(p.Parts, blobs.Part{
			Number: part.GetNumber(), Size: part.GetSize(), ETag: part.GetEtag(), Checksum: part.GetChecksum(),
		})
	}
	for _, piece := range row.GetPieces() {
		p.Pieces = append(p.Pieces, blobs.Piece{Key: piece.GetKey(), Size: piece.GetSize(), CRC32C: piece.GetCrc32C()})
	}
	return p
}

// newParts answers the parts of now that are above those of before; numbers rise.
func newParts(before, now []blobs.Part) []*metav1.Part {
	last := int32(0)
	if len(before) > 0 {
		last = before[len(before)-1].Number
	}
	var parts []*metav1.Part
	for _, p := range now {
		if p.Number > last {
			parts = append(parts, &metav1.Part{Number: p.Number, Size: p.Size, Etag: p.ETag, Checksum: p.Checksum})
		}
	}
	return parts
}

func pieces(now []blobs.Piece) []*metav1.Piece {
	var out []*metav1.Piece
	for _, p := range now {
		out = append(out, &metav1.Piece{Key: p.Key, Size: p.Size, Crc32C: p.CRC32C})
	}
	return out
}

package blobs

import "fmt"

// maxObject bounds the body of a small named object, in bytes.
const maxObject = 1 << 20

// ValidateObject judges what is to be put under a name of Objects: the name, and a body of at most 1 MiB.
func ValidateObject(name string, body []byte) error {
	if err := ValidateObjectName(name); err != nil {
		return err
	}
	if len(body) > maxObject {
		return fmt.Errorf("object %s: at most %d bytes, has %d", name, maxObject, len(body))
	}
	return nil
}

// Validate answers an error that names the field and the bound.
func (a Attempt) Validate() error {
	if err := a.Name.Validate(); err != nil {
		return err
	}
	if a.Length < -1 {
		return fmt.Errorf("attempt: length %d: must be -1 or more", a.Length)
	}
	return a.From.Validate()
}

// Validate answers an error when p cannot be what a Save answered: keys that
// are none, numbers that do not rise, lengths that do not add up to Size.
func (p Progress) Validate() error {
	if len(p.Parts) > 0 && (p.MultipartID == "" || p.MultipartKey == "") {
		return fmt.Errorf("progress: %d parts without a multipart upload", len(p.Parts))
	}
	if p.MultipartKey != "" {
		if _, _, err := ParseKey(p.MultipartKey); err != nil {
			return fmt.Errorf("progress: multipart %w", err)
		}
	}
	total, last := int64(0), int32(0)
	for _, part := range p.Parts {
		if part.Number <= last || part.Size <= 0 {
			return fmt.Errorf("progress: part %d of %d bytes: numbers must rise from 1, sizes be above 0", part.Number, part.Size)
		}
		last = part.Number
		total += part.Size
	}
	for _, piece := range p.Pieces {
		if _, _, err := ParseKey(piece.Key); err != nil {
			return fmt.Errorf("progress: piece %w", err)
		}
		if piece.Size <= 0 {
			return fmt.Errorf("progress: piece %s of %d bytes: must be above 0", piece.Key, piece.Size)
		}
		total += piece.Size
	}
	if total != p.Size {
		return fmt.Errorf("progress: parts and pieces have %d bytes, size is %d", total, p.Size)
	}
	return nil
}

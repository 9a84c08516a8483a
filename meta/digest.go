package meta

import (
	"encoding/hex"

	// The digest's grammar and its registered algorithms, as the OCI specs publish them.
	_ "crypto/sha256"
	_ "crypto/sha512"

	godigest "github.com/opencontainers/go-digest"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Digest is a content digest in the packed form of keys and commands: one
// algorithm byte and the raw hash bytes (33 bytes for sha256). It is comparable,
// orders like its key, and is empty when there is none. A Digest made by
// ParseDigest or UnpackDigest is always well formed.
type Digest string

// Algorithm bytes. They are part of the key format: append only (M7).
const (
	SHA256 byte = 1
	SHA512 byte = 2
	SHA384 byte = 3
)

// algorithmOf answers the registered algorithm for its byte, or "".
func algorithmOf(b byte) godigest.Algorithm {
	switch b {
	case SHA256:
		return godigest.SHA256
	case SHA512:
		return godigest.SHA512
	case SHA384:
		return godigest.SHA384
	}
	return ""
}

// ParseAlgorithm answers the byte of an algorithm's name, such as "sha256".
func ParseAlgorithm(name string) (byte, error) {
	switch name {
	case "sha256":
		return SHA256, nil
	case "sha512":
		return SHA512, nil
	case "sha384":
		return SHA384, nil
	}
	return 0, Refuse(metav1.Kind_KIND_INVALID, metav1.Noun_NOUN_DIGEST,
		"digest algorithm: got %q, expected sha256, sha512 or sha384", clip(name))
}

// ParseDigest reads "algorithm:hex", the form of the OCI specs. Upper-case hex,
// a wrong length and unregistered algorithms are refused (KIND_INVALID).
func ParseDigest(s string) (Digest, error) {
	d, err := godigest.Parse(s)
	if err != nil {
		return "", Refuse(metav1.Kind_KIND_INVALID, metav1.Noun_NOUN_DIGEST,
			"digest: got %q, expected <algorithm>:<lowercase hex>: %s", clip(s), err)
	}
	b, err := ParseAlgorithm(d.Algorithm().String())
	if err != nil {
		return "", err
	}
	raw, err := hex.DecodeString(d.Encoded())
	if err != nil {
		return "", Refuse(metav1.Kind_KIND_INVALID, metav1.Noun_NOUN_DIGEST, "digest: got %q: %s", clip(s), err)
	}
	return Digest(append([]byte{b}, raw...)), nil
}

// UnpackDigest checks packed bytes as they stand in a command or a key.
func UnpackDigest(b []byte) (Digest, error) {
	if len(b) > 0 {
		if a := algorithmOf(b[0]); a != "" && len(b) == 1+a.Size() {
			return Digest(b), nil
		}
	}
	return "", Refuse(metav1.Kind_KIND_INVALID, metav1.Noun_NOUN_DIGEST,
		"digest: got %d packed bytes of no known algorithm", len(b))
}

// PackDigest makes a Digest of an algorithm byte and the raw sum of that algorithm.
func PackDigest(algorithm byte, sum []byte) (Digest, error) {
	return UnpackDigest(append([]byte{algorithm}, sum...))
}

// Algorithm answers the algorithm byte, 0 for the empty Digest.
func (d Digest) Algorithm() byte {
	if d == "" {
		return 0
	}
	return d[0]
}

// String answers "algorithm:hex", or "" for the empty Digest.
func (d Digest) String() string {
	if d == "" {
		return ""
	}
	return algorithmOf(d[0]).String() + ":" + hex.EncodeToString([]byte(d[1:]))
}

// Bytes answers the packed form.
func (d Digest) Bytes() []byte { return []byte(d) }

// clip keeps what a caller sent short enough to be echoed in a message.
func clip(s string) string {
	const bound = 128
	if len(s) > bound {
		return s[:bound] + "..."
	}
	return s
}

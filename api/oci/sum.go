package oci

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"hash"

	"github.com/pontoon-registry/pontoon/meta"
)

// sum is the running hash of an upload (B2), whose state travels in the ledger (B4).
type sum struct {
	algorithm byte
	hash.Hash
}

// newSum begins a hash; algorithm comes from meta.ParseAlgorithm or a Digest.
func newSum(algorithm byte) *sum {
	switch algorithm {
	case meta.SHA256:
		return &sum{algorithm, sha256.New()}
	case meta.SHA384:
		return &sum{algorithm, sha512.New384()}
	case meta.SHA512:
		return &sum{algorithm, sha512.New()}
	}
	return nil
}

// resumeSum continues a hash from its state; nil when the state does not
// unmarshal (another Go release, FIPS mode): the bytes are then read again.
func resumeSum(algorithm byte, state []byte) *sum {
	s := newSum(algorithm)
	if s == nil || len(state) == 0 {
		return nil
	}
	u, ok := s.Hash.(encoding.BinaryUnmarshaler)
	if !ok || u.UnmarshalBinary(state) != nil {
		return nil
	}
	return s
}

// state answers the hash state as SaveUpload carries it; nil for no hash.
func (s *sum) state() []byte {
	if s == nil {
		return nil
	}
	m, ok := s.Hash.(encoding.BinaryMarshaler)
	if !ok {
		return nil
	}
	b, err := m.MarshalBinary()
	if err != nil {
		return nil
	}
	return b
}

// digest answers the digest of what was written.
func (s *sum) digest() (meta.Digest, error) { return meta.PackDigest(s.algorithm, s.Sum(nil)) }

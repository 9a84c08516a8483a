package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	manifestFormat = 1
	// maxChunks bounds the chunks that a manifest may name: 512 GiB compressed.
	maxChunks = 1 << 16
	// maxChunk bounds a chunk's length, in bytes.
	maxChunk = chunkSize
	// maxManifest bounds manifest.json, in bytes.
	maxManifest = 16 << 20
)

// Manifest says what a snapshot holds. Nothing in it differs between nodes of one release at one index (K2).
type Manifest struct {
	Format      uint32 `json:"format"`
	ClusterID   string `json:"cluster_id"`
	Name        string `json:"name"`
	Epoch       string `json:"epoch"`
	Incarnation uint64 `json:"incarnation"`
	Life        string `json:"life"`
	// CommandVersion is the cluster's (M7).
	CommandVersion uint32 `json:"command_version"`
	// Index and Term are of the last entry in the state.
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	// ClusterTime and WallTime are the state's clock, in nanoseconds.
	ClusterTime int64 `json:"cluster_time"`
	WallTime    int64 `json:"wall_time"`
	// Chain is the head of the hash chain (M9), in hexadecimal digits.
	Chain string `json:"chain"`
	// Rows counts the rows by range.
	Rows map[string]int64 `json:"rows"`
	// Release wrote it.
	Release string `json:"release"`
	// Size is the length of the Export stream, in bytes.
	Size   int64   `json:"size"`
	Chunks []Chunk `json:"chunks"`
	// Sum is the SHA-256 of the manifest as it is encoded with an empty Sum.
	Sum string `json:"sha256"`
}

// Chunk is one object of compressed rows.
type Chunk struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Stored is how many bytes the chunks have together.
func (m *Manifest) Stored() (n int64) {
	for _, c := range m.Chunks {
		n += c.Size
	}
	return n
}

// encode answers manifest.json, and sets Sum.
func (m *Manifest) encode() ([]byte, error) {
	m.Sum = ""
	plain, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	sum := sha256.Sum256(plain)
	m.Sum = hex.EncodeToString(sum[:])
	all, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(all, '\n'), nil
}

// decodeManifest reads manifest.json; what it accepts encodes to exactly these bytes. file names it in errors.
func decodeManifest(file string, b []byte) (*Manifest, error) {
	var format struct {
		Format uint32 `json:"format"`
	}
	in := json.NewDecoder(bytes.NewReader(b))
	switch err := in.Decode(&format); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fileError(file, ErrTruncated, "it has %d bytes", len(b))
	case err != nil:
		return nil, fileError(file, ErrAltered, "%v", err)
	case format.Format > manifestFormat:
		return nil, fileError(file, ErrNewerFormat, "format %d, this release reads %d", format.Format, manifestFormat)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fileError(file, ErrAltered, "%v", err)
	}
	again := m
	whole, err := again.encode()
	switch {
	case err != nil:
		return nil, fileError(file, ErrAltered, "%v", err)
	case len(b) == len(whole)-1 && bytes.HasPrefix(whole, b):
		return nil, fileError(file, ErrTruncated, "it has %d bytes of %d", len(b), len(whole))
	case !bytes.Equal(b, whole):
		return nil, fileError(file, ErrAltered, "its sum differs")
	}
	if err := m.check(); err != nil {
		return nil, fileError(file, ErrAltered, "%v", err)
	}
	return &m, nil
}

// check refuses what no writer wrote, so that a reader may rely on it.
func (m *Manifest) check() error {
	if m.Format != manifestFormat {
		return fmt.Errorf("format %d", m.Format)
	}
	if m.ClusterID == "" || m.Index == 0 || m.Size < 0 || len(m.Chunks) == 0 || len(m.Chunks) > maxChunks {
		return errors.New("cluster id, index, size or chunks are out of bounds")
	}
	for n, c := range m.Chunks {
		sum, err := hex.DecodeString(c.SHA256)
		if err != nil || len(sum) != sha256.Size || c.Name != chunkName(n) || c.Size < 1 || c.Size > maxChunk {
			return fmt.Errorf("chunk %d is out of bounds", n)
		}
	}
	return nil
}

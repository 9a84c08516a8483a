package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/pontoon-registry/pontoon/meta"
)

// The format of a log segment, numbers big-endian: one zstd frame of
//
//	"pontoon log\n"  u32 format (1)  u32 length  SegmentHeader in JSON
//	{ u64 index  u64 term  u32 length of the data + 1, 0 for an entry without any  data }   in order of index
//
// and a skippable frame with the SHA-256 of the first: any tool that knows zstd unpacks it, and no byte is without a sum.

const (
	segmentMagic  = "pontoon log\n"
	segmentFormat = 1
	// maxSegment bounds a segment's bytes before compression: entries up to segmentBytes, one more of any size, and the head.
	maxSegment = 16 << 20
	// segmentBytes is how many bytes of entries go into one segment.
	segmentBytes = 8 << 20
	maxHeader    = 4 << 10
	entryHead    = 20
	// sumFrame begins the skippable frame: its magic number and its length, 32, both little-endian (RFC 8878, 3.1.2).
	sumFrame = "\x50\x2a\x4d\x18\x20\x00\x00\x00"
)

// SegmentHeader says what a segment holds.
type SegmentHeader struct {
	ClusterID   string `json:"cluster_id"`
	Incarnation uint64 `json:"incarnation"`
	Life        string `json:"life"`
	// After is the index below the first that the segment covers, Through that of its last entry. An index between
	// them that no entry has is one of Raft's own, which no state ever sees.
	After   uint64 `json:"after"`
	Through uint64 `json:"through"`
	// Chain is the head of the hash chain after Through, in hexadecimal digits; empty when it was not known.
	Chain string `json:"chain"`
	// WallTime is that of the last entry that has one, in Unix nanoseconds: for showing, and for finding an hour.
	WallTime int64 `json:"wall_time"`
}

// Segment is a decoded segment.
type Segment struct {
	SegmentHeader
	Entries []meta.LogEntry
}

// check refuses what no shipper wrote.
func (s *Segment) check() error {
	chain, err := hex.DecodeString(s.Chain)
	switch {
	case s.ClusterID == "" || s.After >= s.Through || len(s.Entries) == 0:
		return errors.New("cluster id or range is out of bounds")
	case err != nil || len(chain) != 0 && len(chain) != sha256.Size:
		return errors.New("the chain's head is none")
	case s.Entries[len(s.Entries)-1].Index != s.Through:
		return fmt.Errorf("the last entry is not %d", s.Through)
	}
	before := s.After
	for _, e := range s.Entries {
		if e.Index <= before {
			return fmt.Errorf("entry %d follows %d", e.Index, before)
		}
		before = e.Index
	}
	return nil
}

// packer encodes segments. Not safe for concurrent use.
type packer struct{ z *zstd.Encoder }

func newPacker() (*packer, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(window))
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	return &packer{z}, nil
}

// encode answers the segment's bytes.
func (p *packer) encode(s *Segment) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("encode segment %s: %w", segmentName(s.After+1, s.Through), err)
	}
	header, err := json.Marshal(s.SegmentHeader)
	if err != nil {
		return nil, fmt.Errorf("encode segment: %w", err)
	}
	out := binary.BigEndian.AppendUint32([]byte(segmentMagic), segmentFormat)
	out = append(binary.BigEndian.AppendUint32(out, uint32(len(header))), header...)
	for _, e := range s.Entries {
		out = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(out, e.Index), e.Term)
		if e.Data == nil {
			out = binary.BigEndian.AppendUint32(out, 0)
			continue
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(e.Data))+1), e.Data...)
	}
	if len(out) > maxSegment {
		return nil, fmt.Errorf("encode segment: %d bytes, at most %d", len(out), maxSegment)
	}
	return sealed(p.z.EncodeAll(out, nil)), nil
}

// sealed appends the sum of a frame.
func sealed(frame []byte) []byte {
	sum := sha256.Sum256(frame)
	return append(append(frame, sumFrame...), sum[:]...)
}

// decodeSegment reads a segment; file names it in errors.
func decodeSegment(file string, b []byte) (*Segment, error) {
	frame, tail := b[:max(len(b)-len(sumFrame)-sha256.Size, 0)], b[max(len(b)-len(sumFrame)-sha256.Size, 0):]
	sum, ok := bytes.CutPrefix(tail, []byte(sumFrame))
	if !ok {
		return nil, fileError(file, ErrTruncated, "it has %d bytes and no sum at its end", len(b))
	}
	if want := sha256.Sum256(frame); !bytes.Equal(sum, want[:]) {
		return nil, fileError(file, ErrAltered, "its sum differs")
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxSegment))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	defer z.Close()
	plain, err := z.DecodeAll(frame, nil)
	if err != nil {
		return nil, fileError(file, ErrAltered, "it cannot be decompressed: %v", err)
	}
	rest, ok := bytes.CutPrefix(plain, []byte(segmentMagic))
	if !ok || len(rest) < 8 {
		return nil, fileError(file, ErrAltered, "it is no log segment")
	}
	if f := binary.BigEndian.Uint32(rest); f > segmentFormat {
		return nil, fileError(file, ErrNewerFormat, "format %d, this release reads %d", f, segmentFormat)
	}
	s, err := parseSegment(rest)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return nil, fileError(file, ErrAltered, "%v", err)
	}
	return s, nil
}

// parseSegment reads what follows the magic.
func parseSegment(b []byte) (*Segment, error) {
	if len(b) < 8 || binary.BigEndian.Uint32(b) != segmentFormat {
		return nil, errors.New("its head is too short, or of no format")
	}
	n := binary.BigEndian.Uint32(b[4:])
	if b = b[8:]; n > maxHeader || int(n) > len(b) {
		return nil, fmt.Errorf("its header has %d bytes", n)
	}
	s := &Segment{}
	if err := json.Unmarshal(b[:n], &s.SegmentHeader); err != nil {
		return nil, fmt.Errorf("its header: %w", err)
	}
	for b = b[n:]; len(b) > 0; {
		if len(b) < entryHead {
			return nil, errors.New("an entry is cut short")
		}
		e := meta.LogEntry{Index: binary.BigEndian.Uint64(b), Term: binary.BigEndian.Uint64(b[8:])}
		size := int64(binary.BigEndian.Uint32(b[16:])) - 1
		if b = b[entryHead:]; size > int64(len(b)) {
			return nil, fmt.Errorf("entry %d is cut short", e.Index)
		}
		if size >= 0 {
			e.Data, b = b[:size:size], b[size:]
		}
		s.Entries = append(s.Entries, e)
	}
	return s, nil
}

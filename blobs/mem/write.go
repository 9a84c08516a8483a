package mem

import (
	"bytes"
	"context"
	"crypto/md5" // an ETag as S3 makes it, not a safeguard
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
)

// writer is one attempt. Parts end at multiples of the part size.
type writer struct {
	s       *Store
	a       blobs.Attempt
	p       blobs.Progress // what is durable, without the tail
	tail    []byte         // bytes after p's parts
	numbers blobs.Numbers
	begun   bool // an own part is durable
	ended   bool
}

// Writer implements blobs.Store.
func (s *Store) Writer(_ context.Context, a blobs.Attempt) (blobs.Writer, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	numbers, err := blobs.NewNumbers(a, s.Reserve(a.From, a.Length))
	if err != nil {
		return nil, err
	}
	w := &writer{s: s, a: a, p: a.From, numbers: numbers}
	w.p.Parts = slices.Clone(a.From.Parts)
	w.p.Pieces = nil
	if w.tail, err = s.pieces(a.From.Pieces); err != nil {
		return nil, fmt.Errorf("resume %s: %w", a.Key(0), err)
	}
	w.p.Size -= int64(len(w.tail))
	return w, nil
}

// pieces answers the verified bytes of plain objects (B6).
func (s *Store) pieces(pieces []blobs.Piece) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []byte
	for _, p := range pieces {
		o, ok := s.objects[p.Key]
		if !ok {
			return nil, fmt.Errorf("piece %s: %w", p.Key, blobs.ErrNotFound)
		}
		if int64(len(o.data)) != p.Size || crc32.Checksum(o.data, castagnoli) != p.CRC32C {
			return nil, fmt.Errorf("piece %s: %w", p.Key, blobs.ErrCorrupt)
		}
		all = append(all, o.data...)
	}
	return all, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (w *writer) Write(b []byte) (int, error) {
	if w.ended {
		return 0, fmt.Errorf("write %s: the attempt has ended", w.a.Key(0))
	}
	w.tail = append(w.tail, b...)
	for int64(len(w.tail)) >= w.s.partSize {
		if err := w.upload(w.tail[:w.s.partSize]); err != nil {
			return 0, fmt.Errorf("write %s: %w", w.a.Key(0), err)
		}
		w.tail = bytes.Clone(w.tail[w.s.partSize:])
	}
	return len(b), nil
}

func (w *writer) upload(data []byte) error {
	number, err := w.numbers.Take()
	if err != nil {
		return err
	}
	if number > maxParts {
		return fmt.Errorf("part %d of at most %d: %w", number, maxParts, blobs.ErrNoRoom)
	}
	if w.p.MultipartID == "" {
		w.p.MultipartKey = w.a.Key(0)
		w.p.MultipartID = w.s.create(w.p.MultipartKey)
	}
	p, err := w.s.uploadPart(w.p.MultipartID, number, data)
	if err != nil {
		return err
	}
	w.p.Parts = append(w.p.Parts, p)
	w.p.Size += p.Size
	w.begun = true
	return nil
}

func (s *Store) create(key string) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counter++
	id = "multipart-" + strconv.Itoa(s.counter)
	s.multiparts[id] = &multipart{key: key, initiated: time.Now(), parts: map[int32]part{}}
	return id
}

func (s *Store) uploadPart(id string, number int32, data []byte) (blobs.Part, error) {
	sum := md5.Sum(data)
	etag := hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.multiparts[id]
	if m == nil {
		return blobs.Part{}, fmt.Errorf("part %d of multipart upload %s: %w", number, id, blobs.ErrNotFound)
	}
	m.parts[number] = part{data: bytes.Clone(data), etag: etag}
	return blobs.Part{Number: number, Size: int64(len(data)), ETag: etag}, nil
}

func (w *writer) Save(context.Context) (blobs.Progress, error) {
	if w.ended {
		return blobs.Progress{}, fmt.Errorf("save %s: the attempt has ended", w.a.Key(0))
	}
	if !w.begun {
		return w.a.From, nil
	}
	p := w.p
	p.Parts = slices.Clone(w.p.Parts)
	w.numbers.Saved(p.Parts[len(p.Parts)-1].Number)
	p.Next = w.numbers.Beyond()
	return p, nil
}

func (w *writer) Close(context.Context) (blobs.Progress, error) {
	if w.ended {
		return blobs.Progress{}, fmt.Errorf("close %s: the attempt has ended", w.a.Key(0))
	}
	w.ended = true
	p := w.p
	p.Next = max(w.a.From.Next, w.numbers.Next())
	if p.Size+int64(len(w.tail)) == w.a.From.Size && !w.begun {
		p.Pieces = w.a.From.Pieces // nothing came
	} else if len(w.tail) > 0 {
		key := w.a.Key(0)
		if w.p.MultipartKey == key {
			key = w.a.Key(1)
		}
		w.s.putObject(key, w.tail)
		p.Pieces = []blobs.Piece{{Key: key, Size: int64(len(w.tail)), CRC32C: crc32.Checksum(w.tail, castagnoli)}}
	}
	p.Size += int64(len(w.tail))
	return p, nil
}

func (w *writer) Abandon() { w.ended = true }

func (s *Store) putObject(key string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key] = object{data: bytes.Clone(data), modified: time.Now()}
}

// Finish implements blobs.Store.
func (s *Store) Finish(ctx context.Context, attempt blobs.Name, p blobs.Progress) (blobs.Finished, error) {
	f, err := s.finish(attempt, p)
	if err != nil {
		return blobs.Finished{}, fmt.Errorf("finish %s: %w", attempt.Key(0), err)
	}
	size, err := s.Stat(ctx, f.Key)
	if err != nil {
		return blobs.Finished{}, fmt.Errorf("finish %s: %w", attempt.Key(0), err)
	}
	if size != p.Size {
		return blobs.Finished{}, fmt.Errorf("finish %s: %s has %d bytes, the ledger says %d: %w", attempt.Key(0), f.Key, size, p.Size, blobs.ErrCorrupt)
	}
	return f, nil
}

func (s *Store) finish(attempt blobs.Name, p blobs.Progress) (blobs.Finished, error) {
	if err := p.Validate(); err != nil {
		return blobs.Finished{}, err
	}
	if err := attempt.Validate(); err != nil {
		return blobs.Finished{}, err
	}
	switch {
	case len(p.Parts) == 0 && p.Size == 0:
		s.putObject(attempt.Key(0), nil)
		return blobs.Finished{Key: attempt.Key(0)}, nil
	case len(p.Parts) == 0 && len(p.Pieces) == 1:
		return blobs.Finished{Key: p.Pieces[0].Key, Size: p.Size}, nil
	case len(p.Parts) == 0 || len(p.Pieces) > 1:
		return blobs.Finished{}, fmt.Errorf("%d parts and %d pieces: at most one piece after the parts", len(p.Parts), len(p.Pieces))
	}
	parts := p.Parts
	if s.open(p.MultipartID) && len(p.Pieces) == 1 {
		tail, err := s.pieces(p.Pieces)
		if err != nil {
			return blobs.Finished{}, err
		}
		last, err := s.uploadPart(p.MultipartID, p.Next, tail)
		if err != nil {
			return blobs.Finished{}, err
		}
		parts = append(slices.Clone(parts), last)
	}
	return blobs.Finished{Key: p.MultipartKey, Size: p.Size, Completed: true}, s.complete(p.MultipartKey, p.MultipartID, parts)
}

func (s *Store) open(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.multiparts[id] != nil
}

// complete makes the parts one object; of a multipart upload that is gone it
// says nothing: the length of the object decides (R-A5).
func (s *Store) complete(key, id string, parts []blobs.Part) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.multiparts[id]
	if m == nil {
		return nil
	}
	var data []byte
	for _, want := range parts {
		have, ok := m.parts[want.Number]
		if !ok || have.etag != want.ETag {
			return fmt.Errorf("part %d: %w", want.Number, blobs.ErrCorrupt)
		}
		data = append(data, have.data...)
	}
	s.objects[key] = object{data: data, modified: time.Now()}
	delete(s.multiparts, id)
	return nil
}

package meta

import (
	"crypto/sha256"
	"encoding/binary"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The hash chain (M9). The head after a command is
//
//	SHA-256( head before | for each write in key order: op, u32 length, key, [u32 length, value] )
//
// op is 1 for a set, 0 for a delete. A command that wrote nothing leaves the
// head as it is. The clock of an entry is chained as if it were a command
// before its first. Rows outsideHash are not chained: they differ between
// healthy nodes, or say nothing about the registry.

const (
	// noteEvery is the distance of the indexes at which the head is noted.
	noteEvery = 1000
	// notesKept bounds the notes.
	notesKept = 1000
)

type link [sha256.Size]byte

// write is one change of a row.
type write struct {
	key   string
	value []byte
	del   bool
}

// extend chains the writes, sorted by key.
func (l link) extend(writes []write) link {
	h := sha256.New()
	h.Write(l[:])
	var size [4]byte
	field := func(s []byte) {
		binary.BigEndian.PutUint32(size[:], uint32(len(s)))
		h.Write(size[:])
		h.Write(s)
	}
	chained := false
	for _, w := range writes {
		if outsideHash(w.key) {
			continue
		}
		chained = true
		if w.del {
			h.Write([]byte{0})
			field([]byte(w.key))
			continue
		}
		h.Write([]byte{1})
		field([]byte(w.key))
		field(w.value)
	}
	if !chained {
		return l
	}
	var out link
	h.Sum(out[:0])
	return out
}

// note answers the index whose head an entry at index settles, given the
// index applied before it: the last multiple of noteEvery that is passed.
// Raft's own entries never reach the state, so that multiple need not be delivered itself.
func noteBefore(applied, index uint64) (at uint64, ok bool) {
	at = index - index%noteEvery
	return at, at > applied && at != 0
}

// Hash answers the head of the chain and the index it belongs to. Safe for concurrent use.
func (s *State) Hash() (index uint64, sum []byte) {
	m := s.now.Load()
	return m.index, append([]byte(nil), m.head[:]...)
}

// HashAt answers the head as it was noted after index, a multiple of 1,000
// among the last million; unknown otherwise. Nodes compare these (M9).
func (s *State) HashAt(index uint64) ([]byte, error) {
	v := s.View()
	defer v.Close()
	var row metav1.Chain
	found := v.read(indexKey(nil, rangeChainNote, index), &row)
	return answer(v, row.GetSha256(), found, metav1.Noun_NOUN_CURSOR,
		"hash note: none at index %d, expected one of the last %d multiples of %d", index, notesKept, noteEvery)
}

// NotedIndexes answers indexes at which this state has noted its hash, newest
// first, at most n: the latest ones one by one, older ones ever further apart, so that two
// nodes of which one is far behind have some in common.
func (s *State) NotedIndexes(n int) []uint64 {
	applied, _ := s.Applied()
	var out []uint64
	step := uint64(noteEvery)
	for at := applied - applied%noteEvery; at > 0 && len(out) < n && applied-at < notesKept*noteEvery; at -= min(at, step) {
		if len(out) >= n/2 {
			step *= 2
		}
		if _, err := s.HashAt(at); err == nil {
			out = append(out, at)
		}
	}
	return out
}

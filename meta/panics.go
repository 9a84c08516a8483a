package meta

import (
	"fmt"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// defectsKept bounds the defect rows.
const defectsKept = 100

// panicked is the deterministic result of a command that panicked (M2).
func (g *group) panicked(index uint64, n uint32, c *metav1.Command, message string) (*metav1.Result, error) {
	g.panics++
	refusal := Refuse(metav1.Kind_KIND_INTERNAL, metav1.Noun_NOUN_UNSPECIFIED,
		"a defect of Pontoon stopped this command; nothing was changed; the operator finds it under log index %d", index)
	return &metav1.Result{Refusal: refusal.Proto(), Index: index}, g.defect(index, n, c, message)
}

// guarded runs fn and answers what it panicked with, or "".
func guarded(fn func()) (panicked string) {
	defer func() {
		if r := recover(); r != nil {
			panicked = clip(fmt.Sprint("panic: ", r))
		}
	}()
	fn()
	return ""
}

// defect notes a panic, outside the hash: its text may differ between releases.
func (g *group) defect(index uint64, n uint32, c *metav1.Command, message string) error {
	r := rows{src: stored{g.batch}}
	prefix := oneRow(nil, rangeDefect)
	kept := 0
	var oldest []byte
	r.scan(prefix, nil, func(k, _ []byte) bool {
		if kept == 0 {
			oldest = append([]byte(nil), k...)
		}
		kept++
		return true
	})
	if r.err != nil {
		return r.err
	}
	if kept >= defectsKept {
		if err := g.batch.Delete(oldest); err != nil {
			return err
		}
	}
	name := string(c.ProtoReflect().WhichOneof(c.ProtoReflect().Descriptor().Oneofs().ByName("kind")).Name())
	value, err := encoding.Marshal(&metav1.Defect{Index: index, Command: name, Message: message, Kind: metav1.Kind_KIND_INTERNAL})
	if err != nil {
		return err
	}
	return g.batch.Set(placeKey(nil, rangeDefect, index, n), value)
}

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/pontoon-registry/pontoon/blobs"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// ownership is the mark's body. Fields are only ever added: a mark of the first release has cluster, epoch and swept_through.
type ownership struct {
	Cluster string `json:"cluster"`
	Epoch   string `json:"epoch"`
	// SweptThrough is the highest log index whose condemned keys may already be gone (G9); the sweep raises it,
	// and nothing lowers it.
	SweptThrough uint64 `json:"swept_through"`
	// Incarnation and Life are those of the owner's state: a recovery begins another one (see standing).
	Incarnation uint64 `json:"incarnation,omitempty"`
	Life        string `json:"life,omitempty"`
	// Turn is random, so that no two writes of the mark are equal and a version never comes back.
	Turn string `json:"turn,omitempty"`
}

// ownershipBound bounds each text of the mark, in bytes.
const ownershipBound = 255

// parseOwnership reads a mark. What cannot be read is nobody's to take.
func parseOwnership(body []byte) (ownership, error) {
	var o ownership
	if err := json.Unmarshal(body, &o); err != nil {
		return ownership{}, fmt.Errorf("%w: %w", blobs.ErrCorrupt, err)
	}
	if o.Cluster == "" || o.Epoch == "" {
		return ownership{}, fmt.Errorf("it names no cluster or no epoch: %w", blobs.ErrCorrupt)
	}
	for field, text := range map[string]string{"cluster": o.Cluster, "epoch": o.Epoch, "life": o.Life, "turn": o.Turn} {
		if len(text) > ownershipBound {
			return ownership{}, fmt.Errorf("%s has %d bytes, at most %d: %w", field, len(text), ownershipBound, blobs.ErrCorrupt)
		}
	}
	return o, nil
}

// encode is the body of the write that turn names.
func (o ownership) encode(turn string) ([]byte, error) {
	o.Turn = turn
	body, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode the owner mark: %w", err)
	}
	return body, nil
}

// ownershipOf is what the mark says of a cluster whose state has this row.
func ownershipOf(s *metav1.System) ownership {
	return ownership{Cluster: s.GetClusterId(), Epoch: s.GetEpoch(), Incarnation: s.GetIncarnation(), Life: s.GetLife()}
}

// standing is how a mark stands to a cluster.
type standing int

const (
	// stranger: the mark is another cluster's, or of a life that is not this one's.
	stranger standing = iota
	// earlier: the mark is of an earlier life of this cluster, which takes it up by a conditional write.
	earlier
	// owner: the mark is this cluster's.
	owner
)

// to says how the mark o stands to the cluster that we are:
//
//	another cluster or epoch                               stranger: a restored cluster, or the wrong bucket
//	same incarnation, same life                            owner
//	same incarnation, another life                         stranger: two directories were recovered apart
//	lower incarnation, a life that ours came from          earlier: we were recovered from it
//	anything else                                          stranger: recovered elsewhere, we are what was left behind
//
// A life names those before it (cluster/recover.go), so that of two directories that were recovered apart the one that
// lost the mark does not get it by being recovered once more. A mark from before lives is everybody's ancestor.
func (o ownership) to(we ownership) standing {
	switch {
	case o.Cluster != we.Cluster || o.Epoch != we.Epoch:
		return stranger
	case o.Incarnation == we.Incarnation && o.Life == we.Life:
		return owner
	case o.Incarnation < we.Incarnation && descends(we.Life, o.Life):
		return earlier
	}
	return stranger
}

// descends says whether a life came from another: its last element is among ours.
func descends(life, from string) bool {
	if from == "" {
		return true
	}
	last := from[strings.LastIndexByte(from, '.')+1:]
	return slices.Contains(strings.Split(life, "."), last)
}

// whose names the owner for people.
func (o ownership) whose(we ownership) string {
	if o.Cluster != we.Cluster || o.Epoch != we.Epoch {
		return fmt.Sprintf("it belongs to cluster %s, epoch %s", o.Cluster, o.Epoch)
	}
	return fmt.Sprintf("it belongs to another life of this cluster, incarnation %d: the cluster was recovered in two places", o.Incarnation)
}

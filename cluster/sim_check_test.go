package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// bystander is what the driver sees of all nodes while they run.
type bystander struct {
	hashes map[uint64][]byte
	opener map[uint64]string
	// compactions and installs that were seen.
	compactions, installs int
}

func newBystander() *bystander {
	return &bystander{hashes: map[uint64][]byte{}, opener: map[uint64]string{}}
}

// look compares nodes with each other and with what they were: equal states at
// equal indexes (M9), one opener of a term (C3), no state that goes back.
func (s *simCluster) look(w *bystander) {
	for _, sl := range s.slots {
		p := sl.live()
		if p == nil {
			continue
		}
		w.lookAtLog(sl, p)
		index, hash := p.State()
		if old := w.hashes[index]; old != nil && !bytes.Equal(old, hash) {
			s.problem("M9: at index %d node %d has another hash than was seen before", index, sl.i)
		}
		w.hashes[index] = hash
		if o := p.opened.Load(); o != nil {
			if old := w.opener[o.term]; old != "" && old != p.id {
				s.problem("C3: term %d was opened by %s and by %s", o.term, old, p.id)
			}
			w.opener[o.term] = p.id
		}
		if !p.readied && p.Ready(context.Background()) == nil {
			p.readied = true
			if index < sl.highest {
				s.problem("C1: node %d is ready at index %d, before it was stopped it had %d", sl.i, index, sl.highest)
			}
		}
		if index < sl.highest && p.readied {
			s.problem("the state of node %d went back from %d to %d", sl.i, sl.highest, index)
		}
		sl.highest = max(sl.highest, index)
	}
	if len(w.hashes) > 100_000 {
		clear(w.hashes) // nodes are never that far apart
	}
}

// lookAtLog counts what moved the beginning of the log.
func (w *bystander) lookAtLog(sl *slot, p *process) {
	first, err := p.logs.FirstIndex()
	store, serr := statePath(sl.data)
	if err != nil || serr != nil {
		return // the node says so itself
	}
	store = filepath.Base(store)
	switch {
	case sl.store != "" && store != sl.store:
		w.installs++
	case first > sl.first && sl.first > 0:
		w.compactions++
	}
	sl.first, sl.store = first, store
}

// checkEnd judges a cluster that has healed and that nobody uses any more.
func (s *simCluster) checkEnd(h *history, w *bystander) {
	if err := s.settled(30 * time.Second); err != nil {
		s.problem("liveness: 30 s after the last fault: %v", err)
		return
	}
	for _, sl := range s.slots {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		if _, err := sl.live().Propose(ctx, putNode("end", fmt.Sprintf("end-%d:1", sl.i))); err != nil {
			s.problem("liveness: a write on node %d: %v", sl.i, err)
		}
		cancel()
	}
	s.checkConverged()
	s.look(w)
	for _, sl := range s.slots {
		s.checkState(sl.live(), h)
	}
	s.checkHistory(h)
}

// checkConverged: all states are one.
func (s *simCluster) checkConverged() {
	deadline, said := time.Now().Add(10*time.Second), ""
	for time.Now().Before(deadline) {
		first, hash := s.slots[0].live().State()
		said = ""
		for _, sl := range s.slots[1:] {
			index, other := sl.live().State()
			if index != first || !bytes.Equal(hash, other) {
				said = fmt.Sprintf("node 0 is at %d with %.8x, node %d at %d with %.8x", first, hash, sl.i, index, other)
			}
		}
		if said == "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.problem("the states do not become one: %s", said)
}

// checkState: what was acknowledged is there (C1), once (M5), and nothing is that was refused.
func (s *simCluster) checkState(p *process, h *history) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := p.View(ctx, meta.Read{}, func(v *meta.View) error {
		puts, duty, err := effects(v)
		if err != nil {
			return err
		}
		for d, n := range puts {
			switch {
			case n > 1:
				s.problem("M5: the write of %s took effect %d times (node %d)", d, n, p.slot.i)
			case h.refused[d]:
				s.problem("M5: the write of %s was refused and took effect (node %d)", d, p.slot.i)
			}
		}
		for d := range h.acked {
			if puts[d] == 0 {
				s.problem("C1: the acknowledged write of %s is not in the state of node %d", d, p.slot.i)
			}
		}
		for i, d := range duty {
			if want := simDutyStep(i + 1); d != want {
				s.problem("C3: step %d of the duty is %s, want %s (node %d)", i+1, d, want, p.slot.i)
				break
			}
		}
		for tag := range tagsOf(h) {
			row, err := v.Tag(simRepository, tag)
			if err != nil && meta.KindOf(err) != metav1.Kind_KIND_UNKNOWN {
				return err
			}
			h.record(1000+p.slot.i, tagOp{tag: tag, verb: "get"}, time.Now(), tagAnswer{outcome: "ok", value: meta.Digest(row.GetDigest()).String()})
		}
		return nil
	})
	if err != nil {
		s.problem("read the end state of node %d: %v", p.slot.i, err)
	}
}

func tagsOf(h *history) map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	tags := map[string]bool{}
	for _, o := range h.ops {
		tags[o.Input.(tagOp).tag] = true
	}
	return tags
}

// effects reads from the events how often each write took effect, and the duty's steps in order.
func effects(v *meta.View) (puts map[string]int, duty []string, err error) {
	puts = map[string]int{}
	var at meta.EventCursor
	for {
		rows, more, err := v.Events(at, 1000)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range rows {
			at = e.EventCursor
			switch {
			case e.GetAction() != metav1.Action_ACTION_PUT_TAG:
			case e.GetTag() == simDutyTag:
				duty = append(duty, meta.Digest(e.GetAfter()).String())
			default:
				puts[meta.Digest(e.GetAfter()).String()]++
			}
		}
		if !more {
			return puts, duty, nil
		}
	}
}

// checkHistory: every tag was one register to all clients (C2).
func (s *simCluster) checkHistory(h *history) {
	h.mu.Lock()
	defer h.mu.Unlock()
	model := tagModel()
	for _, part := range model.Partition(h.ops) {
		switch porcupine.CheckOperationsTimeout(model, part, 0) {
		case porcupine.Ok:
		default:
			s.problem("C2: the history of tag %s is not linearizable (%d operations):\n%s", part[0].Input.(tagOp).tag, len(part), tell(part))
			return
		}
	}
}

func tell(ops []porcupine.Operation) string {
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b bytes.Buffer
	for _, o := range ops {
		fmt.Fprintf(&b, "%12v %12v client %d %+v -> %+v\n", time.Duration(o.Call), time.Duration(o.Return), o.ClientId, o.Input, o.Output)
	}
	return b.String()
}

const simDutyTag = "duty"

func simDutyStep(n int) string {
	d, _ := meta.UnpackDigest(simManifest(fmt.Sprintf("duty step %d", n)).GetPutManifest().GetDigest())
	return d.String()
}

// simDuty goes on from what the ledger says: each step names the one before.
// Two leaders that acted would do a step twice, or skip one.
func simDuty(n *Node) Duty {
	return Duty{Name: "sim", Run: func(ctx context.Context, _ Leadership) error {
		return every(ctx, time.Second, func(ctx context.Context) error {
			now, err := readTag(ctx, n, simDutyTag)
			if err != nil {
				return err
			}
			step := 1
			for now != "" && simDutyStep(step) != now {
				step++
			}
			if now != "" {
				step++
			}
			c := simManifest(fmt.Sprintf("duty step %d", step))
			c.GetPutManifest().Tags = []string{simDutyTag}
			c.GetPutManifest().Condition = &metav1.TagCondition{Absent: now == ""}
			if d, err := meta.ParseDigest(now); err == nil {
				c.GetPutManifest().Condition.Digest = d.Bytes()
			}
			if _, err = n.Propose(ctx, c); meta.KindOf(err) == metav1.Kind_KIND_PRECONDITION {
				return errors.New("another leader was faster") // tried again
			}
			return err
		})
	}}
}

// summary is what a run did, in one line.
func (h *history) summary() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := fmt.Sprintf("%d operations:", len(h.ops))
	for _, k := range slices.Sorted(maps.Keys(h.counts)) {
		out += fmt.Sprintf(" %s %d,", k, h.counts[k])
	}
	return out[:len(out)-1]
}

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	simRepository = "sim/registers"
	// simGeneration is how long a key is used: histories of a key stay short enough to be checked.
	simGeneration = 20 * time.Second
	simKeys       = 3
)

// tagOp is one operation on a tag: a read, a write with or without a precondition, or a deletion.
type tagOp struct {
	tag  string
	verb string // get, put, cas, delete
	// old is the precondition of cas and delete: "" is absence. new is what put and cas write.
	old, new string
}

// tagAnswer is what came of it.
type tagAnswer struct {
	outcome string // ok, refused (the precondition), missing (no such tag), unknown
	value   string // of get; of a refusal: what the tag is instead
}

// tagStep is a tag as M6 wants it. An operation of unknown outcome may take
// effect at any later time, or at the end, which is never.
func tagStep(state any, input, output any) (bool, any) {
	now, op, got := state.(string), input.(tagOp), output.(tagAnswer)
	if op.verb == "get" {
		return got.value == now, now
	}
	holds := op.verb == "put" || op.old == now
	if op.verb == "delete" && now == "" {
		return got.outcome == "missing" || got.outcome == "unknown", now
	}
	switch {
	case holds:
		return got.outcome == "ok" || got.outcome == "unknown", op.new
	case got.outcome == "refused":
		return got.value == now, now
	}
	return got.outcome == "unknown", now
}

func tagModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byTag := map[string][]porcupine.Operation{}
			for _, o := range history {
				byTag[o.Input.(tagOp).tag] = append(byTag[o.Input.(tagOp).tag], o)
			}
			var parts [][]porcupine.Operation
			for _, p := range byTag {
				parts = append(parts, p)
			}
			return parts
		},
		Init: func() any { return "" },
		Step: tagStep,
		DescribeOperation: func(in, out any) string {
			return fmt.Sprintf("%+v -> %+v", in, out)
		},
	}
}

// history is what clients did and saw.
type history struct {
	began time.Time

	mu  sync.Mutex // guards what follows
	ops []porcupine.Operation
	// acked and maybe are the digests whose write was acknowledged, or whose outcome nobody knows.
	acked, maybe map[string]bool
	refused      map[string]bool
	counts       map[string]int
}

func newHistory() *history {
	return &history{began: time.Now(), acked: map[string]bool{}, maybe: map[string]bool{}, refused: map[string]bool{}, counts: map[string]int{}}
}

func (h *history) record(client int, op tagOp, call time.Time, got tagAnswer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[op.verb+" "+got.outcome]++
	if op.new != "" {
		switch got.outcome {
		case "ok":
			h.acked[op.new] = true
		case "unknown":
			h.maybe[op.new] = true
		default:
			h.refused[op.new] = true
		}
	}
	end := int64(time.Since(h.began))
	if got.outcome == "unknown" {
		end = int64(1 << 62)
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: op, Call: int64(call.Sub(h.began)), Output: got, Return: end})
}

func (h *history) count(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[what]++
}

// simClient does operations one after the other, on whichever nodes it likes.
type simClient struct {
	sim  *simCluster
	id   int
	rng  *rand.Rand
	hist *history
	n    int
	// seen is what the client last saw of a tag: what it bases conditions on.
	seen map[string]string
}

func (s *simCluster) client(id int, h *history) *simClient {
	return &simClient{sim: s, id: id, rng: rand.New(rand.NewPCG(s.seed, uint64(100+id))), hist: h, seen: map[string]string{}}
}

// run works until ctx ends, about once in the pause given.
func (c *simClient) run(ctx context.Context, pause time.Duration) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(c.rng.Int64N(int64(2 * pause))))
		if p := pick(c.rng, c.sim.slots).live(); p != nil {
			c.operate(ctx, p)
		}
	}
}

func (c *simClient) operate(ctx context.Context, p *process) {
	key := fmt.Sprintf("k%d-%d", c.rng.IntN(simKeys), time.Since(c.hist.began)/simGeneration)
	op := tagOp{tag: key, verb: pick(c.rng, []string{"get", "get", "get", "put", "cas", "cas", "delete"}), old: c.seen[key]}
	if op.verb == "delete" && op.old == "" {
		op.verb = "get"
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(500+c.rng.IntN(8000))*time.Millisecond)
	defer cancel()
	if op.verb == "get" {
		c.get(ctx, p, op)
		return
	}
	c.write(ctx, p, op)
}

func (c *simClient) get(ctx context.Context, p *process, op tagOp) {
	call := time.Now()
	value, err := readTag(ctx, p.Node, op.tag)
	if err != nil || p.down.Load() { // an answer of a dead process reached nobody
		c.hist.count("get failed")
		return
	}
	c.seen[op.tag] = value
	c.hist.record(c.id, op, call, tagAnswer{outcome: "ok", value: value})
}

func readTag(ctx context.Context, n *Node, tag string) (string, error) {
	var value string
	err := n.View(ctx, meta.Read{}, func(v *meta.View) error {
		row, err := v.Tag(simRepository, tag)
		if meta.KindOf(err) == metav1.Kind_KIND_UNKNOWN {
			return nil
		}
		value = meta.Digest(row.GetDigest()).String()
		return err
	})
	return value, err
}

func (c *simClient) write(ctx context.Context, p *process, op tagOp) {
	command, call := c.command(&op), time.Now()
	result, err := p.Propose(ctx, command)
	if err == nil && p.live() && p.applied() < result.GetIndex() {
		c.sim.problem("C2: node %d answered index %d but its state is at %d", p.slot.i, result.GetIndex(), p.applied())
	}
	got := c.answerOf(err)
	if p.down.Load() { // the client's connection died with the process
		got = tagAnswer{outcome: "unknown"}
	}
	switch got.outcome {
	case "":
		c.hist.count(op.verb + " failed")
		return // certainly not applied
	case "ok":
		c.seen[op.tag] = op.new
	case "refused":
		c.seen[op.tag] = got.value
	case "missing":
		c.seen[op.tag] = ""
	}
	c.hist.record(c.id, op, call, got)
}

func (p *process) live() bool { return !p.down.Load() }

// answerOf sorts what Propose answered; "" is "certainly not applied".
func (c *simClient) answerOf(err error) tagAnswer {
	if err == nil {
		return tagAnswer{outcome: "ok"}
	}
	switch meta.KindOf(err) {
	case metav1.Kind_KIND_PRECONDITION:
		var e *meta.Error
		errors.As(err, &e)
		return tagAnswer{outcome: "refused", value: e.Current}
	case metav1.Kind_KIND_UNKNOWN:
		return tagAnswer{outcome: "missing"}
	case metav1.Kind_KIND_UNAVAILABLE:
		return tagAnswer{}
	case metav1.Kind_KIND_OUTCOME_UNKNOWN:
	default:
		c.sim.problem("a client was answered %v", err)
	}
	return tagAnswer{outcome: "unknown"}
}

// command makes the operation's command; what put and cas write is unique.
func (c *simClient) command(op *tagOp) *metav1.Command {
	condition := &metav1.TagCondition{}
	if op.verb != "put" {
		condition.Absent = op.old == ""
		if d, err := meta.ParseDigest(op.old); err == nil {
			condition.Digest = d.Bytes()
		}
	}
	if op.verb == "delete" {
		return simCommand(&metav1.Command{Kind: &metav1.Command_DeleteTag{DeleteTag: &metav1.DeleteTag{Repository: simRepository, Tag: op.tag, Condition: condition}}})
	}
	c.n++
	put := simManifest(fmt.Sprintf("client %d write %d", c.id, c.n))
	put.GetPutManifest().Tags, put.GetPutManifest().Condition = []string{op.tag}, condition
	d, _ := meta.UnpackDigest(put.GetPutManifest().GetDigest())
	op.new = d.String()
	return put
}

func simCommand(c *metav1.Command) *metav1.Command {
	c.Envelope = &metav1.Envelope{Actor: &metav1.Actor{Name: "sim", Method: "system"}}
	return c
}

func simManifest(text string) *metav1.Command {
	body := []byte(`{"sim":"` + text + `"}`)
	sum := sha256.Sum256(body)
	d, _ := meta.ParseDigest("sha256:" + hex.EncodeToString(sum[:]))
	return simCommand(&metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
		Repository: simRepository, Digest: d.Bytes(), MediaType: meta.MediaTypeImage, Body: body, Size: int64(len(body))}}})
}

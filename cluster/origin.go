package cluster

import (
	"context"
	"sync"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// maxOutstanding bounds the commands that one node has under way.
const maxOutstanding = 8192

// origin numbers this boot's commands, so that a retried one takes effect once
// (M5). A sequence is outstanding from begin to end. end is right only when
// nobody will send a copy again: the command is answered, certainly was
// not taken, or was given up as "outcome unknown". In that last case a copy may
// still lie in a queue or a log somewhere; once the lowest outstanding
// sequence has risen past it, such a copy has no effect, which is one of the
// two outcomes that the caller was told to reckon with. It must not rise while
// a retry may yet be sent: the retry would be answered "stale" although the
// first copy took effect. So a client that goes away ends its command's
// sequence, but only when Propose has stopped retrying. Safe for concurrent use.
type origin struct {
	node  string
	slots chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// boot is this start of the process, or what renew put in its place.
	boot        string
	next        uint64
	lowest      uint64
	outstanding map[uint64]bool
	registered  bool
}

func newOrigin(node, boot string) *origin {
	return &origin{node: node, slots: make(chan struct{}, maxOutstanding), boot: boot, next: 1, lowest: 1, outstanding: map[uint64]bool{}}
}

// begin takes the next sequence; it waits while too many are outstanding.
func (o *origin) begin(ctx context.Context) (*metav1.Origin, error) {
	select {
	case o.slots <- struct{}{}:
	case <-ctx.Done():
		if len(o.slots) < maxOutstanding {
			return nil, unavailable("number the command: %v", context.Cause(ctx))
		}
		return nil, unavailable("%d commands of this node are under way already", maxOutstanding)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	seq := o.next
	o.next++
	o.outstanding[seq] = true
	return &metav1.Origin{NodeId: o.node, BootId: o.boot, Sequence: seq, LowestOutstanding: o.lowest}, nil
}

// end gives a sequence up for good.
func (o *origin) end(seq uint64) {
	o.mu.Lock()
	delete(o.outstanding, seq)
	for o.lowest < o.next && !o.outstanding[o.lowest] {
		o.lowest++
	}
	o.mu.Unlock()
	<-o.slots
}

// known says whether the cluster knows this origin.
func (o *origin) known() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.registered
}

// setKnown notes that the cluster knows the boot.
func (o *origin) setKnown(boot string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.registered = o.registered || o.boot == boot
}

// renew gives up a boot that the cluster has forgotten or closed; sequences go
// on. Were the same boot registered again, a copy of a command that took effect
// before would find neither its result nor a refusal, and take effect twice.
func (o *origin) renew(boot string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.boot == boot {
		o.boot, o.registered = randomID(), false
	}
}

// register is the command that makes the origin known and closes older boots' ones.
func (o *origin) register() *metav1.Command {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &metav1.Command{
		Envelope: &metav1.Envelope{Actor: &metav1.Actor{Name: "system:node", Method: "system"}, NodeId: o.node},
		Kind:     &metav1.Command_RegisterOrigin{RegisterOrigin: &metav1.RegisterOrigin{NodeId: o.node, BootId: o.boot}},
	}
}

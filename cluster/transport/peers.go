package transport

import (
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Lane is one of the three connections to each peer. They are apart because
// all calls on one connection share TCP's order and HTTP/2's windows (T5).
type Lane int

const (
	// Control is for heartbeats, votes, read indexes, forwarded commands:
	// small messages that somebody waits for.
	Control Lane = iota
	// Log is for log entries.
	Log
	// Bulk is for what takes seconds, such as snapshots.
	Bulk
)

type peerLane struct {
	id   string
	lane Lane
}

// peers holds the connections, made when first asked for.
type peers struct {
	mu sync.Mutex
	// guarded by mu; nil once closed
	conns map[peerLane]*lane
}

// Conn is the shared connection to a peer on one lane; it connects when first
// used, reconnects by itself, and is replaced by a new one when trust changes (T8). A call on it fails at once with Unavailable,
// and the reason, while the peer cannot be reached. The error is for a closed
// host.
func (h *Host) Conn(nodeID string, l Lane) (grpc.ClientConnInterface, error) {
	h.peers.mu.Lock()
	defer h.peers.mu.Unlock()
	if h.peers.conns == nil {
		return nil, status.Error(codes.Unavailable, "this node's transport is closed")
	}
	key := peerLane{nodeID, l}
	if ln := h.peers.conns[key]; ln != nil {
		return ln, nil
	}
	ln := &lane{host: h, nodeID: nodeID, target: nodeID, bulk: l == Bulk, resolve: func() (string, error) {
		addr, ok := h.cfg.Resolve(nodeID)
		if !ok {
			return "", fmt.Errorf("no address is known for node %s", nodeID)
		}
		return addr, nil
	}}
	n, err := ln.newLine()
	if err != nil {
		return nil, fmt.Errorf("connect to node %s: %w", nodeID, err)
	}
	ln.line = n
	h.peers.conns[key] = ln
	return ln, nil
}

// Dial makes a connection to whatever node of the trusted secret answers at
// addr ("host:port"); IDOf tells which one it was. The caller closes it. It
// connects when first used.
func (h *Host) Dial(addr string) (*grpc.ClientConn, error) {
	ln := &lane{host: h, target: addr, resolve: func() (string, error) { return addr, nil }}
	n, err := ln.newLine()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return n.cc, nil // not the lane's line: it is cut, not replaced
}

// Forget closes the connections to a node, such as one that was removed.
func (h *Host) Forget(nodeID string) {
	for _, ln := range h.peers.take(nodeID) {
		ln.close()
	}
}

// take takes the connections to a node out.
func (p *peers) take(nodeID string) []*lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*lane
	for _, l := range []Lane{Control, Log, Bulk} {
		key := peerLane{nodeID, l}
		if ln := p.conns[key]; ln != nil {
			found = append(found, ln)
			delete(p.conns, key)
		}
	}
	return found
}

// close ends all connections for good.
func (p *peers) close() {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, ln := range conns {
		ln.close()
	}
}

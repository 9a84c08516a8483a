package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// nodeInfo is what is known of the other end of a connection: gRPC's own
// description of it, the node id, and what its certificate is for.
type nodeInfo struct {
	credentials.TLSInfo
	id, name string
}

// PeerID is the node id of the caller, as its certificate says (T1). It is
// false only outside of a handler of this package's Host.
func PeerID(ctx context.Context) (string, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", false
	}
	return IDOf(p)
}

// PeerName is what the caller's certificate is for; false as PeerID is.
func PeerName(ctx context.Context) (string, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", false
	}
	info, ok := p.AuthInfo.(nodeInfo)
	return info.name, ok
}

// IDOf is the node id of the end of a call, such as grpc.Peer fills in: the way
// to learn who answers at an address that was reached by Dial.
func IDOf(p *peer.Peer) (string, bool) {
	info, ok := p.AuthInfo.(nodeInfo)
	return info.id, ok
}

// nodeCredentials adds node ids to gRPC's TLS.
type nodeCredentials struct {
	credentials.TransportCredentials
	host *Host
	// line dials; nil on the listener's side.
	line *line
}

func (h *Host) serverCredentials() credentials.TransportCredentials {
	return &nodeCredentials{credentials.NewTLS(h.cfg.Credentials.ServerTLS()), h, nil}
}

func (h *Host) clientCredentials(n *line) credentials.TransportCredentials {
	return &nodeCredentials{credentials.NewTLS(h.cfg.Credentials.ClientTLS(n.lane.nodeID)), h, n}
}

func (n *nodeCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	// Read first: a certificate that changes meanwhile makes the connection older than it is, which costs one more.
	shown := n.host.cfg.Credentials.Shown()
	conn, info, err := n.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(handshakeTimeout)
	}
	return n.identify(conn, info, shown, until)
}

func (n *nodeCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	shown := n.host.cfg.Credentials.Shown()
	conn, info, err := n.TransportCredentials.ServerHandshake(raw)
	if err == nil {
		conn, info, err = n.identify(conn, info, shown, time.Time{}) // gRPC has set the deadline
	}
	// A load balancer's probe connects and leaves: not worth a line.
	if err != nil && !errors.Is(err, io.EOF) {
		n.host.cfg.Log.Warn("refused a node's connection", "remote", raw.RemoteAddr().String(), "error", err)
	}
	return conn, info, err
}

// identify finds out who is at the other end, and from then on keeps the connection in sight (T8).
func (n *nodeCredentials) identify(conn net.Conn, info credentials.AuthInfo, shown string, until time.Time) (net.Conn, credentials.AuthInfo, error) {
	t, ok := info.(credentials.TLSInfo)
	if !ok {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("identify peer: handshake gave %T, not TLS", info)
	}
	s := &standing{Conn: conn, all: &n.host.standings, state: t.State, shown: shown, line: n.line, end: End{Accepted: n.line == nil}}
	if n.line != nil {
		s.end.Dialled = n.line.lane.nodeID
	}
	var err error
	if n.host.cfg.Credentials.Claims() {
		s.end.Claimed, err = exchangeIDs(conn, n.host.cfg.NodeID, until)
	}
	var j Judgement
	if err == nil {
		j, err = s.judge(n.host.cfg.Credentials)
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("identify peer: %w", err)
	}
	s.all.add(s)
	if n.line != nil {
		n.line.live.Store(s)
	}
	return s, nodeInfo{t, j.NodeID, j.Name}, nil
}

// exchangeIDs says this node's id and hears the other's: a byte of length, and the id. Within TLS, so nobody else can.
func exchangeIDs(conn net.Conn, own string, until time.Time) (string, error) {
	if !until.IsZero() {
		if err := conn.SetDeadline(until); err != nil {
			return "", err
		}
		defer func() { _ = conn.SetDeadline(time.Time{}) }() // a connection that fails here fails at its next use
	}
	if _, err := conn.Write(append([]byte{byte(len(own))}, own...)); err != nil {
		return "", fmt.Errorf("say node id: %w", err)
	}
	var size [1]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return "", fmt.Errorf("hear node id: %w", err)
	}
	id := make([]byte, size[0])
	if _, err := io.ReadFull(conn, id); err != nil {
		return "", fmt.Errorf("hear node id: %w", err)
	}
	return string(id), nil
}

// Clone is called by gRPC for each connection.
func (n *nodeCredentials) Clone() credentials.TransportCredentials {
	return &nodeCredentials{n.TransportCredentials.Clone(), n.host, n.line}
}

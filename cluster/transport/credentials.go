package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// nodeInfo is what is known of the other end of a connection: gRPC's own
// description of it and the node id.
type nodeInfo struct {
	credentials.TLSInfo
	id string
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

// IDOf is the node id of the end of a call, such as grpc.Peer fills in: the way
// to learn who answers at an address that was reached by Dial.
func IDOf(p *peer.Peer) (string, bool) {
	info, ok := p.AuthInfo.(nodeInfo)
	return info.id, ok
}

// nodeCredentials adds node ids to gRPC's TLS.
type nodeCredentials struct {
	credentials.TransportCredentials
	creds Credentials
	log   *slog.Logger
}

func newServerCredentials(c Credentials, log *slog.Logger) credentials.TransportCredentials {
	return &nodeCredentials{credentials.NewTLS(c.ServerTLS()), c, log}
}

func newClientCredentials(c Credentials, nodeID string, log *slog.Logger) credentials.TransportCredentials {
	return &nodeCredentials{credentials.NewTLS(c.ClientTLS(nodeID)), c, log}
}

func (n *nodeCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := n.TransportCredentials.ClientHandshake(ctx, authority, raw)
	return n.identify(conn, info, err)
}

func (n *nodeCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := n.TransportCredentials.ServerHandshake(raw)
	conn, info, err = n.identify(conn, info, err)
	// A load balancer's probe connects and leaves: not worth a line.
	if err != nil && !errors.Is(err, io.EOF) {
		n.log.Warn("refused a node's connection", "remote", raw.RemoteAddr().String(), "error", err)
	}
	return conn, info, err
}

func (n *nodeCredentials) identify(conn net.Conn, info credentials.AuthInfo, err error) (net.Conn, credentials.AuthInfo, error) {
	if err != nil {
		return nil, nil, err
	}
	t, ok := info.(credentials.TLSInfo)
	if !ok {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("identify peer: handshake gave %T, not TLS", info)
	}
	id, err := n.creds.PeerID(t.State)
	if err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("identify peer: %w", err)
	}
	return conn, nodeInfo{t, id}, nil
}

// Clone is called by gRPC for each connection.
func (n *nodeCredentials) Clone() credentials.TransportCredentials {
	return &nodeCredentials{n.TransportCredentials.Clone(), n.creds, n.log}
}

package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	raftv1 "github.com/pontoon-registry/pontoon/proto/pontoon/raft/v1"
)

// Host serves calls from other nodes and holds the connections to them.
// All methods are safe for concurrent use.
type Host struct {
	cfg    Config
	open   map[string]bool
	server *grpc.Server
	raft   *Raft
	peers  peers
	// standings are all authenticated connections, recheck wakes who judges them.
	standings standings
	recheck   chan struct{}
}

// New makes a Host. It starts nothing, and takes over cfg.Listener only when
// Run is called.
func New(cfg Config) (*Host, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, open: make(map[string]bool, len(cfg.Open)), recheck: make(chan struct{}, 1)}
	h.standings.all = make(map[*standing]struct{})
	for _, m := range cfg.Open {
		h.open[m] = true
	}
	h.server = grpc.NewServer(h.serverOptions()...)
	h.raft = newRaft(h)
	h.peers.conns = make(map[peerLane]*lane)
	raftv1.RegisterRaftServiceServer(h.server, &raftService{raft: h.raft})
	return h, nil
}

func (h *Host) serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(h.serverCredentials()),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxRecvMsgSize(h.cfg.MaxMessage),
		grpc.MaxSendMsgSize(h.cfg.MaxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		// Below the clients' 10 s, with room for timers that fire early.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// Stop returns only when the last handler has.
		grpc.WaitForHandlers(true),
		// Recovery outermost: it guards the check as well.
		grpc.ChainUnaryInterceptor(h.recoverUnary, h.checkUnary),
		grpc.ChainStreamInterceptor(h.recoverStream, h.checkStream),
	}
}

// Registrar is where services are registered, all of them before Run.
func (h *Host) Registrar() grpc.ServiceRegistrar { return h.server }

// Addr is the address of the listener.
func (h *Host) Addr() net.Addr { return h.cfg.Listener.Addr() }

// Raft is the endpoint for Raft, as long-lived as the host.
func (h *Host) Raft() *Raft { return h.raft }

// Run serves until ctx ends, then lets calls finish for DrainTimeout, cuts the
// rest, closes every connection to peers and returns nil. It returns early
// with an error only if the listener fails. Run may be called once. The Raft
// that uses Instance should be shut down before ctx ends: afterwards each of
// its calls fails.
func (h *Host) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := h.server.Serve(netutil.LimitListener(h.cfg.Listener, maxConns))
		if err == nil || errors.Is(err, grpc.ErrServerStopped) || ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("serve nodes on %s: %w", h.Addr(), err)
	})
	g.Go(func() error { return h.keep(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		h.stop()
		return nil
	})
	return g.Wait()
}

func (h *Host) stop() {
	h.raft.Detach() // handlers that wait for Raft return at once
	cut := time.AfterFunc(h.cfg.DrainTimeout, h.server.Stop)
	h.server.GracefulStop()
	cut.Stop()
	h.raft.receiving.Wait() // their streams have ended
	h.peers.close()
}

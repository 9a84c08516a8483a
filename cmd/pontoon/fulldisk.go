package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/api/admin"
	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// On a full disk neither log nor state may be opened: both write, and Raft
// panics when it cannot persist a term. But a process that only ends tells
// nobody anything. So, before anything of the node is opened, it waits for space,
// without Raft, and every door says so:
//
//	full at start ─► ballast given back ─► doors only, unready ─► space again ─► doors closed ─► the normal start
//
// Nothing of the node was opened, so the normal start in the same process is as
// good as one in a new process, and needs no supervisor. The ballast is what lets the
// socket, the log lines and, for a first start, the secret be written at all.

// spacePoll is how often a node that waits asks for the free space.
const spacePoll = time.Second

// awaitSpace returns when the node may be opened: at once, unless the disk is full.
func (a *app) awaitSpace(ctx context.Context, c *Config, log *slog.Logger) error {
	if err := os.MkdirAll(c.Cluster.DataDir, 0o700); err != nil {
		return fmt.Errorf("make cluster.datadir: %w", err)
	}
	space := cluster.NewSpace(c.Cluster.DataDir, c.Cluster.MinFree, c.Cluster.Ballast)
	figures, err := space.Look()
	if err != nil {
		log.Warn("the free space is not known", "error", err) // the node will say the same, or fail at its first write
		return nil
	}
	if figures.Level != cluster.Full {
		return nil
	}
	if err := space.Release(); err != nil {
		return err
	}
	log.Error("the node waits, without Raft, until there is space", "error", figures.Err())
	w := &waiting{cfg: c, log: log, space: space, started: time.Now()}
	if err := w.run(ctx, a.host); err != nil {
		return err
	}
	if ctx.Err() == nil {
		log.Info("there is space again: the node starts")
	}
	return context.Cause(ctx)
}

// waiting is a node that has not been opened for want of space. It answers at every door.
type waiting struct {
	cfg     *Config
	log     *slog.Logger
	space   *cluster.Space
	started time.Time
}

// errSpace ends a wait: there is room.
var errSpace = errors.New("there is space again")

// run serves until there is space or ctx ends; both are nil.
func (w *waiting) run(ctx context.Context, h host) error {
	server, err := w.server(h)
	if err != nil {
		return err
	}
	handler, err := admin.New(admin.Config{Ledger: w, Members: w, Membership: w, Trust: w, Collector: closedDuties{w}, Backups: closedDuties{w}})
	if err != nil {
		return err
	}
	door, err := admin.Listen(ctx, filepath.Join(w.cfg.Cluster.DataDir, socketName), w.log)
	if err != nil {
		return err
	}
	operators := operatorsServer(handler, w.log)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error {
		if err := operators.Serve(door); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("operators' socket: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return operators.Close()
	})
	g.Go(func() error { return w.watch(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, errSpace) {
		return err
	}
	return nil
}

// watch answers errSpace once there is room.
func (w *waiting) watch(ctx context.Context) error {
	tick := time.NewTicker(spacePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if f, err := w.space.Look(); err == nil && f.Level == cluster.Roomy {
			return errSpace
		}
	}
}

// server is the registry's, with everything refused but health.
func (w *waiting) server(h host) (*api.Server, error) {
	r := &registry{cfg: w.cfg, log: w.log}
	secrets, err := w.cfg.secrets(w.log)
	if err != nil {
		return nil, err
	}
	if r.trust, err = cluster.NewTrust(secrets, "public", nil); err != nil {
		return nil, err
	}
	if r.health, err = api.NewHealth(api.HealthConfig{Node: w}); err != nil {
		return nil, err
	}
	metrics := api.NewMetrics()
	if err := metrics.WatchNode(w.figures); err != nil {
		return nil, err
	}
	c, err := r.serverConfig(h, metrics)
	if err != nil {
		return nil, err
	}
	c.Handler, c.OnListen, c.DrainDelay, c.DrainTimeout = http.HandlerFunc(w.refuse), nil, -1, time.Second
	return api.New(c)
}

// refuse answers a client as the registry does while it cannot serve; what is wrong is for operators only.
func (w *waiting) refuse(rw http.ResponseWriter, _ *http.Request) {
	const body = `{"errors":[{"code":"UNAVAILABLE","message":"this node does not serve now: its disk is full; another one does"}]}` + "\n"
	rw.Header().Set("Content-Type", "application/json; charset=utf-8")
	rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
	rw.Header().Set("Retry-After", "5")
	rw.WriteHeader(http.StatusServiceUnavailable)
	_, _ = rw.Write([]byte(body)) // the client may be gone
}

func (w *waiting) figures() api.NodeFigures { return diskFigures(api.NodeFigures{}, w.space.Last()) }

// diskFigures adds where the disk stands.
func diskFigures(f api.NodeFigures, s cluster.SpaceFigures) api.NodeFigures {
	f.DiskFree, f.DiskWanted, f.Ballast, f.DiskLevel = s.Free, s.MinFree, s.Ballast, int(s.Level)
	return f
}

// Ready is api.Node's.
func (w *waiting) Ready(context.Context) error { return fmt.Errorf("not ready: %w", w.err()) }

// err is what the node waits for, also in the moment after there is space again.
func (w *waiting) err() error {
	if err := w.space.Last().Err(); err != nil {
		return err
	}
	return errSpace
}

// Started is api.Node's.
func (w *waiting) Started() bool { return false }

// DebugState is api.Node's: there is no state.
func (w *waiting) DebugState() any {
	return struct {
		Waiting string `json:"waiting"`
	}{w.err().Error()}
}

// Status is admin.Members'.
func (w *waiting) Status(context.Context) (*adminv1.GetStatusResponse, error) {
	text := w.err().Error()
	return &adminv1.GetStatusResponse{
		Node: &adminv1.NodeStatus{
			Name: w.cfg.Cluster.NodeName, Release: releaseName(), Started: timestamppb.New(w.started),
			DataDirectory: w.cfg.Cluster.DataDir, Phase: text, Checks: []*adminv1.Check{{Name: "disk", Detail: text}},
		},
		Cluster: &adminv1.ClusterStatus{Name: w.cfg.Cluster.Name},
	}, nil
}

// View is meta.Ledger's: refused.
func (w *waiting) View(context.Context, meta.Read, func(*meta.View) error) error { return w.refusal() }

// Propose is meta.Ledger's: refused.
func (w *waiting) Propose(context.Context, *metav1.Command) (*metav1.Result, error) {
	return nil, w.refusal()
}

// Trust is admin.Trust's: refused.
func (w *waiting) Trust(context.Context) (*adminv1.GetTrustResponse, error) { return nil, w.refusal() }

// Remove is admin.Membership's: refused.
func (w *waiting) Remove(context.Context, string, bool, bool, *metav1.Envelope) (string, error) {
	return "", w.refusal()
}

// Leave is admin.Membership's: refused.
func (w *waiting) Leave(context.Context, bool, bool, *metav1.Envelope) (string, error) {
	return "", w.refusal()
}

// Transfer is admin.Membership's: refused.
func (w *waiting) Transfer(context.Context, string, *metav1.Envelope) (string, error) {
	return "", w.refusal()
}

// Finalize is admin.Membership's: refused.
func (w *waiting) Finalize(context.Context, *metav1.Envelope) (before, version uint32, err error) {
	return 0, 0, w.refusal()
}

func (w *waiting) refusal() error {
	return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_NODE, "this node has not been opened: %v", w.err())
}

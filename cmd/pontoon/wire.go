package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/api/admin"
	"github.com/pontoon-registry/pontoon/api/auth"
	"github.com/pontoon-registry/pontoon/api/oci"
	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/meta"
)

// registry is one node, wired. It owns what open made and run started.
type registry struct {
	cfg     *Config
	log     *slog.Logger
	started time.Time
	store   *store
	// trust issues the public certificate; the node has one of its own for other nodes.
	trust *cluster.Trust
	node  *cluster.Node
	// gc forgets: the collector, the owner mark, and what was seen of both.
	gc     *forgetting
	backup *remembering
	oci    *oci.Handler
	server *api.Server
	health *api.Health
	// door is the operators' socket.
	door  net.Listener
	admin *http.Server
	// url is where clients reach the registry, once it listens.
	url      atomic.Pointer[string]
	announce func(url string)
	last     lastResort
	// departure is a leave, once an operator asks for one.
	departure departure
}

// stepDownTime bounds the handing over of leadership; without an answer the others elect.
const stepDownTime = 3 * time.Second

// storeCheckTime is how long readiness waits to hear of the store; the question itself goes on.
const storeCheckTime = 500 * time.Millisecond

// doorTime is how long calls of operators that are under way at the end may take.
const doorTime = time.Second

// open introduces everybody to everybody, from the bytes up, with f between them (nothing in a release). On an error nothing
// stays open.
func open(ctx context.Context, c *Config, h host, f *faults, log *slog.Logger) (_ *registry, err error) {
	r := &registry{cfg: c, log: log, started: time.Now(), announce: func(string) {}, departure: newDeparture()}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := os.MkdirAll(c.Cluster.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make cluster.datadir: %w", err)
	}
	secrets, err := c.secrets(log)
	if err != nil {
		return nil, err
	}
	if r.trust, err = cluster.NewTrust(secrets, "public", f.now()); err != nil {
		return nil, err
	}
	metrics := api.NewMetrics()
	if r.store, err = openStore(ctx, c, metrics); err != nil {
		return nil, err
	}
	r.store.objects = f.objects(r.store.objects)
	node := c.clusterConfig(secrets, r.store, metrics, log)
	node.Seams = f.seams()
	if r.node, err = cluster.Open(ctx, node); err != nil {
		return nil, err
	}
	ledger := f.ledger(r.node)
	if err := r.checkStore(ctx); err != nil {
		return nil, err
	}
	if r.gc, err = newForgetting(c, ledger, r.store, f, metrics, log); err != nil {
		return nil, err
	}
	r.gc.duty(r.node)
	owns := func(ctx context.Context) error { return r.gc.Raise(ctx, 0) }
	if r.backup, err = newRemembering(ctx, c, r.node, ledger, owns, f, metrics, log); err != nil {
		return nil, err
	}
	if err := r.openDoors(ctx, h, ledger, f, metrics); err != nil {
		return nil, err
	}
	return r, nil
}

// checkStore refuses to start with a store that cannot be right. A member of a
// cluster starts all the same while its store does not answer: manifests, tags and HEADs need none.
func (r *registry) checkStore(ctx context.Context) error {
	err := r.store.check(ctx)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("open storage.%s: %w", r.cfg.Storage.Driver, err)
	if !errors.Is(err, blobs.ErrUnavailable) || r.node.ClusterID() == "" {
		return err
	}
	r.log.Warn("the store does not answer; starting all the same: manifests and tags are served, layers once it is back", "error", err)
	return nil
}

// openDoors builds what the world sees: login, registry, health, server, and the operators' socket.
func (r *registry) openDoors(ctx context.Context, h host, ledger meta.Ledger, f *faults, metrics *api.Metrics) error {
	access, err := auth.New(r.cfg.authConfig(metrics, r.log))
	if err != nil {
		return err
	}
	registry := r.cfg.ociConfig(ledger, r.store, access, metrics, r.log)
	registry.Store = f.store("store", registry.Store)
	registry.Owned = r.gc.owned
	if r.oci, err = oci.New(registry); err != nil {
		return err
	}
	health := api.HealthConfig{
		Node: healthOf{r.node, new(atomic.Bool)},
		// A dead store stops layers and nothing else, and it is dead for every node: unready ones would serve nothing at all.
		// Nor may a store that hangs make /readyz slower than the patience of a balancer, 1 s by Kubernetes' default.
		Checks: []api.Check{{Name: "store", Advisory: true, Timeout: storeCheckTime, Run: r.store.ready}},
	}
	if r.health, err = api.NewHealth(health); err != nil {
		return err
	}
	if err := r.watch(metrics); err != nil {
		return err
	}
	serverConfig, err := r.serverConfig(h, metrics)
	if err != nil {
		return err
	}
	if r.server, err = api.New(serverConfig); err != nil {
		return err
	}
	r.last = lastResort{log: r.log, exit: h.exit, drain: r.server.DrainBound(), end: endTime}
	handler, err := admin.New(admin.Config{Ledger: ledger, Members: r, Membership: r, Trust: r, Collector: r.gc, Backups: r.backup})
	if err != nil {
		return err
	}
	r.admin = operatorsServer(handler, r.log)
	r.door, err = admin.Listen(ctx, filepath.Join(r.cfg.Cluster.DataDir, socketName), r.log)
	return err
}

// operatorsServer serves the operators' socket.
func operatorsServer(handler http.Handler, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC clients, over the socket only
	return &http.Server{
		Handler: handler, ConnContext: admin.ConnContext, Protocols: &protocols,
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// run serves until ctx ends or something fails for good, and then takes the node
// down. The order of the end is written here and nowhere else.
func (r *registry) run(ctx context.Context) error {
	serving, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	below := context.WithoutCancel(ctx)
	pulling, stopPulls := context.WithCancel(below)
	defer stopPulls()
	deciding, stopNode := context.WithCancel(below)
	defer stopNode()

	drained, over := make(chan struct{}), make(chan struct{})
	var last sync.WaitGroup
	last.Go(func() { r.last.watch(serving, drained, over) })
	defer last.Wait()
	defer close(over)

	var node, pulls, sides errgroup.Group
	node.Go(func() error { return r.node.Run(deciding) })
	sides.Go(func() error { // a node that cannot go on takes its door down with it, without waiting until it has ended
		select {
		case <-r.node.Ending():
			fail(nil)
		case <-serving.Done():
		}
		return nil
	})
	pulls.Go(func() error { return r.oci.Run(pulling) })
	sides.Go(func() error { return r.serveSocket(fail) })
	sides.Go(func() error { return r.departure.await(serving, fail) })
	sides.Go(func() error { return r.reloadOn(serving) })
	sides.Go(func() error { return r.gc.watch(serving) })
	sides.Go(func() error { return announceReady(serving, r.health, r.log, func() { r.announce(r.registryURL()) }) })

	// 1. Unready first, so that balancers turn away while we still accept; then no new connections; then
	//    running requests end, or are cut at http.draintimeout. They need all that is below.
	err := r.server.Run(serving)
	fail(err)
	close(drained)
	// 2. Hand leadership over while Raft still runs: the others need no election, so writes pause for milliseconds.
	r.stepDown(below)
	// 3. The last pull counts go into the log, through whoever leads now.
	stopPulls()
	err = errors.Join(err, pulls.Wait())
	// 4. Nobody is served here any more: a node that leaves is removed, by whoever leads now.
	err = errors.Join(err, r.depart(below))
	// 5. The operators' door stays open until here, so that a drain can be watched and a leave answered.
	err = errors.Join(err, r.closeDoor(below), sides.Wait())
	// 6. Duties stop, Raft closes: nobody is left who would ask it.
	stopNode()
	err = errors.Join(err, node.Wait())
	// 7. State and store close last: all above read them.
	err = errors.Join(err, r.close())
	if err == nil {
		r.log.Info("stopped")
	}
	return err
}

func (r *registry) stepDown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stepDownTime)
	defer cancel()
	if err := r.node.StepDown(ctx); err != nil {
		r.log.Warn("leadership was not handed over; the others will elect", "error", err)
	}
}

// closeDoor closes the operators' door: a call that has its answer may take it home.
func (r *registry) closeDoor(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, doorTime)
	defer cancel()
	if r.admin.Shutdown(ctx) == nil {
		return nil
	}
	return r.admin.Close()
}

// serveSocket serves the operators' door until it is closed.
func (r *registry) serveSocket(fail context.CancelCauseFunc) error {
	err := r.admin.Serve(r.door)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	err = fmt.Errorf("operators' socket: %w", err)
	fail(err)
	return err
}

// close lets go of what open made, from the top down. What was not opened is skipped.
func (r *registry) close() error {
	var errs []error
	if r.door != nil {
		if err := r.door.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("close the operators' socket: %w", err))
		}
	}
	if r.node != nil {
		errs = append(errs, r.node.Close())
	}
	if r.backup != nil {
		errs = append(errs, r.backup.close())
	}
	if r.store != nil {
		errs = append(errs, r.store.close())
	}
	return errors.Join(errs...)
}

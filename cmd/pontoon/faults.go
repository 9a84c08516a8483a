//go:build faults

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/meta"
)

// A binary that is built with the tag `faults` does harm to itself when it is told to. It is for package chaos and is never
// released (TestAReleaseHasNoFaults). Without PONTOON_FAULTS it behaves as a release does.
//
//	PONTOON_FAULTS=127.0.0.1:7999          where the control API listens: loopback only, there is no login
//	PONTOON_FAULTS_SET='{"dial":{...}}'    what holds from the first moment on: the body of PUT /
//
// The control API, JSON both ways. Durations are texts such as "1m30s". What is wrong is answered 400 with a sentence.
//
//	GET    /             everything: {"dial":…,"clock":…,"space":…,"disk":…,"rules":[…],"points":{name: hits}}
//	PUT    /             {"dial":…,"clock":…,"space":…,"disk":…,"rules":[…]}; what is missing stays as it is, rules are added
//	PUT    /dial         {"peer host:port":"proxy host:port"}: replaces the table. Who is not in it is dialled directly.
//	                     Connections that stand are cut when their way changed. Gossip goes its own way.
//	PUT    /clock        {"offset":"1h"}: the wall clock is that much ahead; or {"jump":"-5m"}: from where it is.
//	                     It is that of entries, certificates, schedules of gc and backups, and S3's signatures.
//	PUT    /space        {"free":1048576}: what the disk is said to have, of a node that runs; {}: the truth
//	PUT    /disk         {"log":{"delay":"20ms"},"state":{"hang":true}}: each write of the disk takes that much longer, or does
//	                     not end until this is put anew; the node's own watch counts it as the disk's time. {}: the truth
//	POST   /rules        {"point":…,"match":…,"action":…,…} → {"id":1}
//	GET    /rules/1      {"id":1,…,"hits":n,"acted":n,"held":n}
//	DELETE /rules/1      releases who is held by it, takes it away, and answers what GET answered
//	DELETE /rules        all of them
//	GET    /events       {"action":…,"request":…,"repository":…,"tag":…,"digest":…,"subject":…} of each change that the ledger
//	                     keeps, a line each, the oldest first, and an empty line: harms nothing, and no release tells it
//
// A rule:
//
//	point    a name of the list below; a star at its end stands for any text
//	match    acts only where the detail contains it: a key, digest, repository, tag, name of a command (PutManifest)
//	action   pause   until the rule is deleted, at most 10 min; whoever waits does not notice that its context ends
//	         sleep   for "for"
//	         fail    with an error; "error" says which: see below
//	         exit    the process ends at once with code 86, as kill -9 would end it
//	skip     so many hits pass first. Default 0.
//	times    so many hits are acted on. Default: all.
//
// The points. What is called as <before|after> has both; an error before means that nothing was done, one after that the
// answer was lost.
//
//	store.<call>.<before|after>     a registry request asks the store of layers: open, stat, writer, write, save, close,
//	                                abandon, finish, presign. Detail: key, or epoch/upload/attempt.
//	                                Outside of retries and breaker: only this one request is held. error: unavailable (the
//	                                default), notfound, corrupt, noroom. abandon cannot fail.
//	gc.<call>.<before|after>        the same for the collector: list, listmultiparts, stat, delete, abort
//	mark.<get|put>.<before|after>   the owner mark; put is conditional. error: as store, and exists, changed
//	archive.<put|get|list|delete>.<before|after>   backups. error: as store, and exists
//	ledger.propose.<before|after>   this node's callers, before the command is sent and before its answer is told. Detail: the
//	                                command with all its fields. fail: unavailable before, outcome unknown after.
//	ledger.view.<before|after>      a read
//	log.store.<before|after>        Raft's StoreLogs, on every node. Detail: index, term, the commands. fail ends the node.
//	log.delete.<before|after>       entries are removed; log.set.<before|after>: term and vote. fail ends the node.
//	state.apply.<before|after>      entries are applied. Detail as log.store. fail ends the node. Not the disk's time.
//	state.commit.<before|after>     around Pebble's commit, as the disk's time. It cannot fail.
//	node.step                       "term is opened" (before it is), and the steps of an install: "downloaded", "raft is down",
//	                                "term is raised" (before CURRENT changes), "pointer is written" (after), "state is swapped",
//	                                "log is wiped", "stub is written". fail ends the node, or the opening of the term.
//	stream.<give|install>           each read of a state on its way. Detail: bytes=<so many went by>
type faults struct {
	log   *slog.Logger
	rules rules
	disks [2]slowDisk // log, state

	mu sync.Mutex // guards what follows
	// routes are the dial table, by the address that a peer advertises.
	routes map[string]string
	conns  map[*routed]struct{}
	offset time.Duration
	// free is what the disk is said to have; nil: the truth.
	free *int64
	// shown is whose events are told; nil: not opened yet.
	shown meta.Ledger

	server *http.Server
	done   chan error
}

const (
	logDisk = iota
	stateDisk
)

// openFaults listens where PONTOON_FAULTS says; nil when it says nothing.
func openFaults(ctx context.Context, h host, log *slog.Logger) (*faults, error) {
	addr := h.getenv("PONTOON_FAULTS")
	if addr == "" {
		return nil, nil
	}
	name, _, err := net.SplitHostPort(addr)
	if err != nil || !net.ParseIP(name).IsLoopback() {
		return nil, fmt.Errorf("PONTOON_FAULTS is %q, must be a loopback address with a port: %w", addr, cmp.Or(err, errors.New("whoever reaches it may break this node")))
	}
	f := &faults{log: log, conns: map[*routed]struct{}{}, done: make(chan error, 1)}
	f.rules.exit = f.exit
	turnSDKClock(f.time)
	if set := h.getenv("PONTOON_FAULTS_SET"); set != "" {
		var s harm
		if err := strictly([]byte(set), &s); err != nil {
			return nil, fmt.Errorf("PONTOON_FAULTS_SET: %w", err)
		}
		if err := f.set(s); err != nil {
			return nil, fmt.Errorf("PONTOON_FAULTS_SET: %w", err)
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for faults: %w", err)
	}
	f.server = &http.Server{Handler: f.handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { f.done <- f.server.Serve(l) }()
	log.Warn("this node breaks on command; never use this binary for anything but tests", "control", addr)
	return f, nil
}

// close ends the control API and lets everybody go.
func (f *faults) close() error {
	if f == nil {
		return nil
	}
	f.rules.clear()
	for i := range f.disks {
		f.disks[i].set(diskSetting{})
	}
	err := f.server.Close()
	if served := <-f.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// harm is the body of PUT /; nil: as it is.
type harm struct {
	Dial  map[string]string       `json:"dial,omitempty"`
	Clock *clockSetting           `json:"clock,omitempty"`
	Space *spaceSetting           `json:"space,omitempty"`
	Disk  *map[string]diskSetting `json:"disk,omitempty"`
	Rules []rule                  `json:"rules,omitempty"`
}

type clockSetting struct {
	Offset *duration `json:"offset,omitempty"`
	Jump   duration  `json:"jump,omitempty"`
}

type spaceSetting struct {
	Free *int64 `json:"free,omitempty"`
}

func (f *faults) set(s harm) error {
	if s.Disk != nil {
		if err := f.setDisks(*s.Disk); err != nil {
			return err
		}
	}
	for _, r := range s.Rules {
		if _, err := f.rules.add(r); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.Clock != nil {
		if s.Clock.Offset != nil {
			f.offset = time.Duration(*s.Clock.Offset)
		}
		f.offset += time.Duration(s.Clock.Jump)
	}
	if s.Space != nil {
		f.free = s.Space.Free
	}
	if s.Dial != nil {
		f.routes = maps.Clone(s.Dial)
		for c := range f.conns {
			if f.route(c.peer) != c.via {
				_ = c.Conn.Close() // whoever uses it sees a broken connection, and dials anew
			}
		}
	}
	return nil
}

// route is for whoever holds mu.
func (f *faults) route(peer string) string { return cmp.Or(f.routes[peer], peer) }

// seams are what the node gets.
func (f *faults) seams() cluster.Seams {
	if f == nil {
		return cluster.Seams{}
	}
	return cluster.Seams{
		Dial: f.dial, LogDisk: f.logDisk, StateDisk: f.stateDisk, Applier: f.applier, Step: f.step, Stream: f.stream,
		FreeSpace: f.freeSpace, Now: f.time,
	}
}

// routed is a connection to a peer.
type routed struct {
	net.Conn
	f         *faults
	peer, via string
}

func (f *faults) dial(ctx context.Context, peer string) (net.Conn, error) {
	f.mu.Lock()
	via := f.route(peer)
	f.mu.Unlock()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", via)
	if err != nil {
		return nil, err
	}
	c := &routed{conn, f, peer, via}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.route(peer) != via {
		return nil, errors.Join(fmt.Errorf("dial %s: its way has changed meanwhile", peer), conn.Close())
	}
	f.conns[c] = struct{}{}
	return c, nil
}

// Close implements net.Conn.
func (c *routed) Close() error {
	c.f.mu.Lock()
	delete(c.f.conns, c)
	c.f.mu.Unlock()
	return c.Conn.Close()
}

func (f *faults) freeSpace(dir string) (int64, error) {
	f.mu.Lock()
	free := f.free
	f.mu.Unlock()
	if free != nil {
		return *free, nil
	}
	figures, err := cluster.NewSpace(dir, 0, 0).Look()
	return figures.Free, err
}

// now is the wall clock; nil: the real one.
func (f *faults) now() func() time.Time {
	if f == nil {
		return nil
	}
	return f.time
}

func (f *faults) time() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Add(f.offset)
}

// duration is a time.Duration as text.
type duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = duration(parsed)
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// balancer is the demo's TCP balancer: it copies bytes, deals connections in
// turn to the nodes that are ready, and knows nothing of what they carry. For
// anything but the demo use a real one.
type balancer struct {
	backends []*backend
	turn     atomic.Uint64
}

type backend struct {
	addr  string
	ready atomic.Bool
}

const (
	balancerConns  = 512
	balancerPoll   = 100 * time.Millisecond
	balancerProbe  = time.Second
	balancerDial   = time.Second
	balancerBuffer = 32 << 10
)

func newBalancer(addrs ...string) *balancer {
	b := &balancer{}
	for _, addr := range addrs {
		b.backends = append(b.backends, &backend{addr: addr})
	}
	return b
}

// Run serves l until ctx ends, then closes it and every connection.
func (b *balancer) Run(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	for _, back := range b.backends {
		group.Go(func() error { return back.watch(ctx) })
	}
	conns := errgroup.Group{}
	conns.SetLimit(balancerConns)
	group.Go(func() error {
		defer func() { _ = conns.Wait() }() // connections tell each other of their end
		for {
			c, err := l.Accept()
			switch {
			case err != nil && ctx.Err() != nil:
				return nil
			case err != nil:
				return fmt.Errorf("balancer: %w", err)
			}
			conns.Go(func() error { b.serve(ctx, c); return nil })
		}
	})
	return group.Wait()
}

// watch asks a node's /readyz until ctx ends.
func (b *backend) watch(ctx context.Context) error {
	tr := &http.Transport{DisableKeepAlives: true}
	hc := &http.Client{Transport: tr, Timeout: balancerProbe}
	tick := time.NewTicker(balancerPoll)
	defer tick.Stop()
	for {
		b.ready.Store(probe(ctx, hc, "http://"+b.addr+"/readyz"))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// probe is true when the URL answers 200.
func probe(ctx context.Context, hc *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := hc.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close() // only the status counts
	return res.StatusCode == http.StatusOK
}

// serve copies both ways until both have ended or ctx has.
func (b *balancer) serve(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	node, err := b.dial(ctx)
	if err != nil {
		return // the client sees its connection closed, as behind any TCP balancer
	}
	defer func() { _ = node.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = client.Close(), node.Close() })
	defer stop()
	var both errgroup.Group
	both.Go(func() error { return pipe(node, client) })
	both.Go(func() error { return pipe(client, node) })
	_ = both.Wait() // a cut connection is the ends' business
}

// pipe copies and passes the end of the stream on.
func pipe(dst, src net.Conn) error {
	_, err := io.CopyBuffer(dst, src, make([]byte, balancerBuffer))
	if half, ok := dst.(*net.TCPConn); ok && err == nil {
		return half.CloseWrite()
	}
	return errors.Join(err, dst.Close())
}

// dial reaches the next node that is ready and answers.
func (b *balancer) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: balancerDial}
	err := errors.New("no node is ready")
	for range b.backends {
		back := b.backends[b.turn.Add(1)%uint64(len(b.backends))]
		if !back.ready.Load() {
			continue
		}
		var c net.Conn
		if c, err = d.DialContext(ctx, "tcp", back.addr); err == nil {
			return c, nil
		}
		back.ready.Store(false)
	}
	return nil, err
}

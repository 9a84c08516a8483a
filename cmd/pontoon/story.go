package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

const demoRepository = "demo/hello"

// story is what the demo shows. Every step is checked, timed and told.
func (d *demo) story(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, storyTime, fmt.Errorf("the story took longer than %s", storyTime))
	defer cancel()
	before, err := newImage("hello from a cluster of three")
	if err != nil {
		return err
	}
	after, err := newImage("hello from a cluster that lost its leader")
	if err != nil {
		return err
	}
	var leader *demoNode
	var index uint64
	first := d.nodes[0]
	for _, step := range []struct {
		tell func() string
		do   func(context.Context) error
	}{
		{func() string { return fmt.Sprintf("three nodes are one registry; %s leads", leader.name) },
			func(ctx context.Context) error { leader, err = d.form(ctx); return err }},
		{func() string { return fmt.Sprintf("pushed an image of %s through %s", size(before.size()), first.name) },
			func(ctx context.Context) error {
				return d.http.push(ctx, []string{first.url()}, demoRepository, "before", before)
			}},
		{func() string { return "pulled it byte for byte through the other two" },
			func(ctx context.Context) error { return d.pullFrom(ctx, d.nodes[1:], "before", before) }},
		{func() string { return fmt.Sprintf("killed the leader, %s, with SIGKILL", leader.name) },
			func(context.Context) error { leader.kill(); return nil }},
		{func() string { return "pushed another image through the balancer, each request to the next node" },
			func(ctx context.Context) error { return d.insist(ctx, "after", after) }},
		{func() string { return "pulled both images byte for byte through the two that are left" },
			func(ctx context.Context) error {
				return errors.Join(d.pullFrom(ctx, d.others(leader), "before", before), d.pullFrom(ctx, d.others(leader), "after", after))
			}},
		{func() string { return fmt.Sprintf("brought %s back; it has caught up to index %d", leader.name, index) },
			func(ctx context.Context) error { index, err = d.revive(ctx, leader); return err }},
		{func() string { return fmt.Sprintf("pulled what it had missed through %s", leader.name) },
			func(ctx context.Context) error { return d.pullFrom(ctx, []*demoNode{leader}, "after", after) }},
	} {
		begun := time.Now()
		stepCtx, done := context.WithTimeoutCause(ctx, stepTime, fmt.Errorf("it took longer than %s", stepTime))
		err := step.do(stepCtx)
		done()
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		if err := d.tell(step.tell(), time.Since(begun)); err != nil {
			return err
		}
	}
	d.say("all of it took %s", time.Since(d.begun).Round(10*time.Millisecond))
	return nil
}

// tell writes the line of a step with its time.
func (d *demo) tell(text string, took time.Duration) error {
	if d.app.json() {
		return d.app.showJSON(struct {
			Step    string  `json:"step"`
			Seconds float64 `json:"seconds"`
		}{text, took.Seconds()})
	}
	_, err := fmt.Fprintf(d.app.out, "%8.3f s  %s\n", took.Seconds(), text)
	return err
}

// form starts all nodes, waits until each is ready, and answers the leader.
func (d *demo) form(ctx context.Context) (*demoNode, error) {
	for _, n := range d.nodes {
		if err := n.start(); err != nil {
			return nil, err
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, n := range d.nodes {
		group.Go(func() error { return n.ready(groupCtx, d.http) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return d.leader(ctx)
}

// leader asks each node whether it leads a cluster that can lose one: before
// the third votes, killing the leader would end the quorum.
func (d *demo) leader(ctx context.Context) (*demoNode, error) {
	tick := time.NewTicker(demoPoll)
	defer tick.Stop()
	for {
		for _, n := range d.nodes {
			s, err := n.status(ctx)
			if err == nil && s.GetCluster().GetLeader() == s.GetNode().GetId() && s.GetCluster().GetFailureTolerance() >= 1 {
				return n, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("no node leads all %d: %w", demoSize, context.Cause(ctx))
		}
	}
}

func (d *demo) others(but *demoNode) []*demoNode {
	var others []*demoNode
	for _, n := range d.nodes {
		if n != but {
			others = append(others, n)
		}
	}
	return others
}

func (d *demo) pullFrom(ctx context.Context, nodes []*demoNode, tag string, i *image) error {
	for _, n := range nodes {
		if err := d.http.pull(ctx, n.url(), demoRepository, tag, i); err != nil {
			return fmt.Errorf("through %s: %w", n.name, err)
		}
	}
	return nil
}

// insist pushes through the balancer as clients do: a connection that was cut, and a 503, are tried again.
func (d *demo) insist(ctx context.Context, tag string, i *image) error {
	tick := time.NewTicker(demoPoll)
	defer tick.Stop()
	for {
		err := d.http.push(ctx, []string{"http://" + d.addr}, demoRepository, tag, i)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("through the balancer: %w (%w)", err, context.Cause(ctx))
		}
	}
}

// revive starts a node again and waits until it has what the others have; it answers how far that is.
func (d *demo) revive(ctx context.Context, n *demoNode) (uint64, error) {
	s, err := d.others(n)[0].status(ctx)
	if err != nil {
		return 0, err
	}
	index := s.GetNode().GetAppliedIndex()
	if err := n.start(); err != nil {
		return 0, err
	}
	if err := n.ready(ctx, d.http); err != nil {
		return 0, err
	}
	return index, n.caughtUp(ctx, index)
}

package chaos

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
)

// This file puts lines between the nodes, and between each and the store: a node that starts is told which line leads to
// which of the others.

// storeName is the end of the mesh at which the store is.
const storeName = "s3"

// wire is called before each start of a node: it may be new, or have another address than before.
func (a *arena) wire(n *node) {
	a.t.Helper()
	if n.points == nil {
		n.points = withPoints(a.t, n, nil)
	}
	var err error
	if slices.Contains(a.mesh.Nodes(), n.name) {
		err = a.mesh.Move(n.name, n.peer)
	} else {
		err = a.mesh.Join(n.name, n.peer)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	const setting = "PONTOON_FAULTS_SET="
	n.env = slices.DeleteFunc(n.env, func(line string) bool { return strings.HasPrefix(line, setting) })
	set, err := json.Marshal(map[string]any{"dial": a.mesh.Routes(n.name)})
	if err != nil {
		a.t.Fatal(err)
	}
	n.env = append(n.env, setting+string(set))
	a.route()
}

// route tells all nodes that run which lines there are. One that is stopped is told at the next calm.
func (a *arena) route() {
	if a.d == nil { // the first nodes start; they are told when all of them run
		return
	}
	var group sync.WaitGroup
	for _, n := range a.d.nodes {
		if n.points == nil || n.proc == nil || n.proc.over() || !a.free(n) {
			continue
		}
		group.Go(func() {
			_ = n.points.dial(context.Background(), a.mesh.Routes(n.name)) // it may have just ended
		})
	}
	group.Wait()
}

// storage is the block of a node's config that leads to the store: by the node's own line, and its own door of the layer of
// faults before the server.
func (a *arena) storage(n *node) string {
	a.t.Helper()
	line := a.mesh.Line(n.name, storeName)
	if line == nil {
		target, err := a.s3.Door(n.name)
		if err != nil {
			a.t.Fatal(err)
		}
		if line, err = a.mesh.Connect(n.name, storeName, target); err != nil {
			a.t.Fatal(err)
		}
	}
	return strings.ReplaceAll(a.bucket.yaml(), a.bucket.endpoint, "http://"+line.Addr())
}

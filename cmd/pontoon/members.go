package main

import (
	"context"
	"encoding/hex"
	"iter"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

// Status is admin.Members: what the node and its health say, put together.
func (r *registry) Status(ctx context.Context) (*adminv1.GetStatusResponse, error) {
	s, report := r.node.Status(ctx), r.health.Report(ctx)
	node := &adminv1.NodeStatus{
		Id: s.NodeID, Name: r.cfg.Cluster.NodeName, Release: releaseName(), Started: timestamppb.New(r.started),
		Ready: report.Ready, AppliedIndex: s.Applied, RegistryUrl: r.registryURL(),
		Store: r.store.where, DataDirectory: r.cfg.Cluster.DataDir, Phase: s.Phase,
	}
	if s.Fresh >= 0 {
		node.Fresh = durationpb.New(s.Fresh)
	}
	for _, c := range report.Checks {
		node.Checks = append(node.Checks, &adminv1.Check{Name: c.Name, Ok: c.OK, Detail: c.Error})
	}
	out := &adminv1.GetStatusResponse{Node: node, Cluster: &adminv1.ClusterStatus{
		Id: s.ClusterID, Name: r.cfg.Cluster.Name, Epoch: s.Epoch, Incarnation: s.Incarnation, Version: s.Version,
		Term: s.Term, Leader: s.LeaderID, Voters: int32(voters(s)), FailureTolerance: int32(s.FailureTolerance),
	}}
	for _, m := range s.Members {
		out.Members = append(out.Members, memberOf(m))
	}
	out.Store = r.gc.status()
	return out, nil
}

func memberOf(m cluster.Member) *adminv1.Member {
	out := &adminv1.Member{
		Id: m.GetId(), Name: m.GetName(), Address: m.GetAddress(), Release: m.GetRelease(),
		Voter: m.Voter, Leader: m.Leader, Reachable: m.Reachable, AppliedIndex: m.Applied, Lag: m.Lag,
	}
	out.MinVersion, out.MaxVersion = m.GetMinVersion(), m.GetMaxVersion()
	if m.Contact > 0 {
		out.Contact = durationpb.New(m.Contact)
	}
	if m.Heard >= 0 {
		out.LastContact = durationpb.New(m.Heard)
	}
	return out
}

func voters(s cluster.Status) (n int) {
	for _, m := range s.Members {
		if m.Voter {
			n++
		}
	}
	return n
}

// healthOf is api.Node over the cluster's node.
type healthOf struct {
	node *cluster.Node
	once *atomic.Bool
}

// Ready is the node's, and remembers whether it ever was.
func (h healthOf) Ready(ctx context.Context) error {
	err := h.node.Ready(ctx)
	if err == nil {
		h.once.Store(true)
	}
	return err
}

// Started says whether Ready was ever nil.
func (h healthOf) Started() bool { return h.once.Load() }

// DebugState shows the index of the state and its hash: equal indexes have equal hashes on every node (M9).
func (h healthOf) DebugState() any {
	applied, hash := h.node.State()
	return struct {
		Node    string `json:"node"`
		Applied uint64 `json:"applied"`
		Hash    string `json:"hash"`
	}{h.node.ID(), applied, hex.EncodeToString(hash)}
}

// scrapeTime bounds what one scrape asks of the node.
const scrapeTime = 2 * time.Second

// watch lets every scrape of the metrics ask the node.
func (r *registry) watch(m *api.Metrics) error {
	if err := m.WatchNode(r.figures); err != nil {
		return err
	}
	return m.WatchProjects(r.projects)
}

func (r *registry) figures() api.NodeFigures {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	s := r.node.Status(ctx)
	f := api.NodeFigures{
		Leader: s.LeaderID == s.NodeID, LeaderKnown: s.LeaderID != "", Term: s.Term, Applied: s.Applied, Committed: s.Committed, Last: s.LastLog,
		QueueBytes: s.QueueBytes, Panics: s.Panics,
		Voters: voters(s), FailureTolerance: s.FailureTolerance, PublicCertificate: r.server.CertificateExpiry(),
	}
	if t := r.node.Trust(); t != nil {
		if expires, err := t.Expires(); err == nil { // absent from the scrape otherwise
			f.ClusterCertificate = expires
		}
	}
	return diskFigures(f, r.node.Space())
}

// projects yields the bytes of each project, in pages; without a quorum it ends early and the scrape lacks the rest.
func (r *registry) projects() iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
		defer cancel()
		for after, more := "", true; more; {
			var rows []meta.Project
			err := r.node.View(ctx, meta.Read{}, func(v *meta.View) (err error) {
				rows, more, err = v.Projects(after, pageSize)
				return err
			})
			if err != nil || len(rows) == 0 {
				return
			}
			for _, row := range rows {
				if !yield(row.Name, row.GetBytes()) {
					return
				}
			}
			after = rows[len(rows)-1].Name
		}
	}
}

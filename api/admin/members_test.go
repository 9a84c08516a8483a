package admin

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/pontoon-registry/pontoon/meta"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// crew is a Membership that notes what it was asked, and refuses when it has a refusal.
type crew struct {
	verb, node    string
	force, dryRun bool
	by            *metav1.Envelope
	refusal       error
}

func (c *crew) Remove(_ context.Context, node string, force, dryRun bool, by *metav1.Envelope) (string, error) {
	c.verb, c.node, c.force, c.dryRun, c.by = "remove", node, force, dryRun, by
	return "id-of-" + node, c.refusal
}

func (c *crew) Leave(_ context.Context, force, dryRun bool, by *metav1.Envelope) (string, error) {
	c.verb, c.force, c.dryRun, c.by = "leave", force, dryRun, by
	return "n1", c.refusal
}

func (c *crew) Transfer(_ context.Context, node string, by *metav1.Envelope) (string, error) {
	c.verb, c.node, c.by = "transfer", node, by
	return "n2", c.refusal
}

func (c *crew) Finalize(_ context.Context, by *metav1.Envelope) (uint32, uint32, error) {
	c.verb, c.by = "finalize", by
	return 1, 2, c.refusal
}

// Trust is admin.Trust's.
func (c *crew) Trust(context.Context) (*adminv1.GetTrustResponse, error) {
	return &adminv1.GetTrustResponse{Nodes: []*adminv1.NodeTrust{{Id: "n1"}}}, c.refusal
}

func TestNothingThatTheServicesStandOnIsMissing(t *testing.T) {
	r := newRig(t)
	whole := Config{Ledger: r.ledger, Members: known{}, Membership: &r.crew, Trust: &r.crew, Collector: &r.gc, Backups: &r.saver}
	for name, lack := range map[string]func(*Config){
		"Ledger":     func(c *Config) { c.Ledger = nil },
		"Members":    func(c *Config) { c.Members = nil },
		"Membership": func(c *Config) { c.Membership = nil },
		"Trust":      func(c *Config) { c.Trust = nil },
		"Collector":  func(c *Config) { c.Collector = nil },
		"Backups":    func(c *Config) { c.Backups = nil },
	} {
		c := whole
		lack(&c)
		if _, err := New(c); err == nil || err.Error() != "admin: "+name+" is required" {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := New(whole); err != nil {
		t.Error(err)
	}
}

func TestMemberVerbsCarryWhatWasAskedAndWhoAsked(t *testing.T) {
	r := newRig(t)
	check := func(verb, answer, want string, err error) {
		t.Helper()
		if err != nil || answer != want || r.crew.verb != verb {
			t.Errorf("%s: got %q, %v of %q", verb, answer, err, r.crew.verb)
		}
		if r.crew.by.GetActor().GetMethod() != "socket" || r.crew.by.GetRequestId() == "" {
			t.Errorf("%s: asked by %v", verb, r.crew.by)
		}
	}
	removed, err := r.members.RemoveMember(t.Context(), &adminv1.RemoveMemberRequest{Node: "n3", Force: true, DryRun: true})
	check("remove", removed.GetId(), "id-of-n3", err)
	if !r.crew.force || !r.crew.dryRun || r.crew.node != "n3" {
		t.Errorf("remove: asked for %+v", r.crew)
	}
	left, err := r.members.LeaveCluster(t.Context(), &adminv1.LeaveClusterRequest{})
	check("leave", left.GetId(), "n1", err)
	if r.crew.force || r.crew.dryRun {
		t.Errorf("leave: asked for %+v", r.crew)
	}
	handed, err := r.members.TransferLeadership(t.Context(), &adminv1.TransferLeadershipRequest{Node: "n2"})
	check("transfer", handed.GetLeader(), "n2", err)
	raised, err := r.members.FinalizeUpgrade(t.Context(), &adminv1.FinalizeUpgradeRequest{})
	check("finalize", "", "", err)
	if raised.GetBefore() != 1 || raised.GetVersion() != 2 {
		t.Errorf("finalize: got %v", raised)
	}
}

func TestMemberVerbsRefuseBadInputAndPassRefusalsOn(t *testing.T) {
	r := newRig(t)
	for _, node := range []string{"", strings.Repeat("x", 256)} {
		_, err := r.members.RemoveMember(t.Context(), &adminv1.RemoveMemberRequest{Node: node})
		if connect.CodeOf(err) != connect.CodeInvalidArgument || r.crew.verb != "" {
			t.Errorf("remove %q: got %v", node, err)
		}
	}
	r.crew.refusal = meta.Refuse(metav1.Kind_KIND_PRECONDITION, metav1.Noun_NOUN_NODE, "it is the last voter")
	if _, err := r.members.LeaveCluster(t.Context(), &adminv1.LeaveClusterRequest{}); connect.CodeOf(err) != connect.CodeFailedPrecondition ||
		!strings.Contains(err.Error(), "the last voter") {
		t.Errorf("leave: got %v", err)
	}
}

func TestListMembersIsWhatStatusSays(t *testing.T) {
	r := newRig(t)
	if _, err := r.members.ListMembers(t.Context(), &adminv1.ListMembersRequest{}); err != nil {
		t.Error(err)
	}
}

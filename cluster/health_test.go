package cluster

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

// member answers, or does not, as one of some release would.
type member struct {
	clusterv1.NodeServiceClient
	health, term error
	terms        int
}

func (m *member) Health(context.Context, *clusterv1.HealthRequest, ...grpc.CallOption) (*clusterv1.HealthResponse, error) {
	if m.health != nil {
		return nil, m.health
	}
	return &clusterv1.HealthResponse{LastLog: 12, LastLogTerm: 3, Applied: 11, LastContact: 5}, nil
}

func (m *member) Term(context.Context, *clusterv1.TermRequest, ...grpc.CallOption) (*clusterv1.TermResponse, error) {
	m.terms++
	if m.term != nil {
		return nil, m.term
	}
	return &clusterv1.TermResponse{Term: 4, LastLog: 22, Applied: 21}, nil
}

// TestAMemberOfThePreviousReleaseIsJudgedByWhatItCanAnswer: were it taken for silent while a cluster is upgraded, the upgraded
// nodes would count it as failed, and their leader would give its vote away.
func TestAMemberOfThePreviousReleaseIsJudgedByWhatItCanAnswer(t *testing.T) {
	unknown, down := status.Error(codes.Unimplemented, "unknown method Health"), status.Error(codes.Unavailable, "connection refused")
	for name, c := range map[string]struct {
		member member
		// index, applied, term and contact are what autopilot judges by; terms is how often it was asked for less.
		index, applied, term uint64
		contact              int64
		terms                int
		err                  codes.Code
	}{
		"this release":                          {member: member{}, index: 12, applied: 11, term: 3, contact: 5},
		"this release, out of reach":            {member: member{health: down}, err: codes.Unavailable},
		"the previous release":                  {member: member{health: unknown}, index: 22, applied: 21, term: 4, terms: 1},
		"the previous release, lost in between": {member: member{health: unknown, term: down}, terms: 1, err: codes.Unavailable},
	} {
		h, err := healthBy(t.Context(), &c.member)
		if status.Code(err) != c.err || h.GetLastLog() != c.index || h.GetApplied() != c.applied || h.GetLastLogTerm() != c.term || h.GetLastContact() != c.contact {
			t.Errorf("%s: %v, %v", name, h, err)
		}
		if c.member.terms != c.terms {
			t.Errorf("%s: asked for its term %d times, want %d", name, c.member.terms, c.terms)
		}
	}
}

package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// MemberTrust is what one member shows and trusts.
type MemberTrust struct {
	*metav1.Node
	// Report is nil when the member did not answer; Err says why.
	Report *clusterv1.TrustResponse
	Err    error
}

// TrustReport asks every member of the Raft configuration what it shows and trusts, for at most half a second.
func (n *Node) TrustReport(ctx context.Context) []MemberTrust {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	book := map[string]*metav1.Node{}
	for _, m := range n.nodes() {
		book[m.GetId()] = m
	}
	servers := n.raft().GetConfiguration().Configuration().Servers
	out := make([]MemberTrust, len(servers))
	var asking sync.WaitGroup
	for i, s := range servers {
		m := &out[i]
		if m.Node = book[string(s.ID)]; m.Node == nil {
			m.Node = &metav1.Node{Id: string(s.ID)}
		}
		asking.Go(func() { m.Report, m.Err = n.askTrust(ctx, m.GetId()) })
	}
	asking.Wait()
	return out
}

func (n *Node) askTrust(ctx context.Context, id string) (*clusterv1.TrustResponse, error) {
	if id == n.id {
		return n.trustReport()
	}
	peer, err := n.peer(id)
	if err != nil {
		return nil, err
	}
	answer, err := peer.Trust(ctx, &clusterv1.TrustRequest{})
	return answer, fromStatus(err)
}

// Trust answers what this node shows and trusts.
func (s *service) Trust(context.Context, *clusterv1.TrustRequest) (*clusterv1.TrustResponse, error) {
	answer, err := s.node.trustReport()
	return answer, toStatus(err)
}

func (n *Node) trustReport() (*clusterv1.TrustResponse, error) {
	if n.trust == nil {
		return nil, unavailable("node %s was started without a secret", n.id)
	}
	expires, err := n.trust.Expires()
	if err != nil {
		return nil, fmt.Errorf("certificate of node %s: %w", n.id, err)
	}
	standing := map[string]int{}
	if n.host != nil {
		for _, s := range n.host.Standing() {
			standing[s.By]++
		}
	}
	out := &clusterv1.TrustResponse{Expires: timestamppb.New(expires), CertificateName: n.trust.certificateName()}
	for i, id := range n.trust.SecretIDs() {
		out.Secrets = append(out.Secrets, &clusterv1.Trusted{Id: id, Signs: i == 0, Connections: uint32(standing[id])})
	}
	if o := n.trust.operator.Load(); o != nil {
		for _, id := range o.ids {
			out.Authorities = append(out.Authorities, &clusterv1.Trusted{Id: id, Signs: id == o.by, Connections: uint32(standing[id])})
		}
	}
	return out, nil
}

// SecretIDs name the secrets without telling anything of them; the first signs.
func (t *Trust) SecretIDs() []string {
	var ids []string
	for _, a := range t.state.Load().nodes {
		ids = append(ids, a.id)
	}
	return ids
}

// certificateName is what the certificate of this node is for.
func (t *Trust) certificateName() string {
	if o := t.operator.Load(); o != nil {
		return o.name
	}
	return t.nodeID
}

const (
	// expiryLook is how often the certificate is looked at, expiryWarn for how
	// long before its end an operator is told, at most once in expiryRepeat.
	expiryLook   = time.Hour
	expiryWarn   = 30 * 24 * time.Hour
	expiryRepeat = 24 * time.Hour
)

// watchExpiry tells in time of a certificate that only the operator can renew. A
// derived one renews itself.
func (n *Node) watchExpiry(ctx context.Context) error {
	if n.trust == nil || !n.trust.Claims() {
		return nil
	}
	tick := time.NewTicker(expiryLook)
	defer tick.Stop()
	var said time.Time
	for {
		now := n.trust.now()
		if level, text := expiryWarning(n.trust.operator.Load(), now); text != "" && now.Sub(said) >= expiryRepeat {
			n.log.Log(ctx, level, text)
			said = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// expiryWarning speaks up in the last third of a certificate's life, at most 30 days before its end or that of an authority above it.
func expiryWarning(o *operatorTrust, now time.Time) (slog.Level, string) {
	leaf, left := o.leaf.Leaf, o.ends.Sub(now)
	what, advice := "cluster.tls.certificate for "+o.name, "replace the file, it is read again at once"
	if o.ends.Before(leaf.NotAfter) {
		what, advice = "an authority above cluster.tls.certificate for "+o.name,
			"replace that file, and cluster.tls.ca on every node where it is a root; they are read again at once"
	}
	switch {
	case left <= 0:
		return slog.LevelError, fmt.Sprintf("%s expired at %s: the other nodes refuse this one; %s", what, o.ends.Format(time.RFC3339), advice)
	case left < min(expiryWarn, leaf.NotAfter.Sub(leaf.NotBefore)/3):
		return slog.LevelWarn, fmt.Sprintf("%s expires in %s: %s", what, left.Round(time.Hour), advice)
	}
	return 0, ""
}

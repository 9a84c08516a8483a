package main

import (
	"context"

	"github.com/pontoon-registry/pontoon/cluster"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	clusterv1 "github.com/pontoon-registry/pontoon/proto/pontoon/cluster/v1"
)

// Trust is admin.Trust: what every member says that it shows and trusts.
func (r *registry) Trust(ctx context.Context) (*adminv1.GetTrustResponse, error) {
	out := &adminv1.GetTrustResponse{}
	for _, m := range r.node.TrustReport(ctx) {
		out.Nodes = append(out.Nodes, trustOf(m))
	}
	return out, nil
}

func trustOf(m cluster.MemberTrust) *adminv1.NodeTrust {
	out := &adminv1.NodeTrust{
		Id: m.GetId(), Name: m.GetName(), CertificateName: m.Report.GetCertificateName(), CertificateExpires: m.Report.GetExpires(),
		Secrets: trustedOf(m.Report.GetSecrets()), Authorities: trustedOf(m.Report.GetAuthorities()),
	}
	if m.Err != nil {
		out.Error = m.Err.Error()
	}
	return out
}

func trustedOf(keys []*clusterv1.Trusted) []*adminv1.TrustedKey {
	var out []*adminv1.TrustedKey
	for _, k := range keys {
		out = append(out, &adminv1.TrustedKey{Id: k.GetId(), Signs: k.GetSigns(), Connections: k.GetConnections()})
	}
	return out
}

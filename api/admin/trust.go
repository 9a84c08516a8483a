package admin

import (
	"context"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

// trust serves TrustService.
type trust struct{ of Trust }

func (t *trust) GetTrust(ctx context.Context, _ *adminv1.GetTrustRequest) (*adminv1.GetTrustResponse, error) {
	return t.of.Trust(ctx)
}

package admin

import (
	"context"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
)

// status serves StatusService.
type status struct{ members Members }

func (s *status) GetStatus(ctx context.Context, _ *adminv1.GetStatusRequest) (*adminv1.GetStatusResponse, error) {
	return s.members.Status(ctx)
}

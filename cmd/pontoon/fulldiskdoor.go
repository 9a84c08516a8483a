package main

import (
	"context"
	"io"

	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// closedDuties are admin.Collector and admin.Backups of a node that waits for space: refused.
type closedDuties struct{ w *waiting }

// Settings is admin.Collector's.
func (closedDuties) Settings(context.Context, *adminv1.GetCollectionResponse) {}

// Plan is admin.Collector's.
func (c closedDuties) Plan(context.Context, []string, func(*adminv1.PlanCycleResponse) error) error {
	return c.w.refusal()
}

// Verify is admin.Collector's.
func (c closedDuties) Verify(context.Context, bool, *metav1.Envelope, func(*adminv1.VerifyStoreResponse) error) error {
	return c.w.refusal()
}

// Adopt is admin.Collector's.
func (c closedDuties) Adopt(context.Context, *adminv1.AdoptStoreRequest, *metav1.Envelope, func(*adminv1.VerifyStoreResponse) error) (*adminv1.Adoption, error) {
	return nil, c.w.refusal()
}

// Request is admin.Backups'.
func (c closedDuties) Request(context.Context, *metav1.Envelope, bool) (string, error) {
	return "", c.w.refusal()
}

// Read is admin.Backups'.
func (c closedDuties) Read(context.Context, *metav1.Envelope, bool, func(string) error, io.Writer) (*adminv1.WrittenSnapshot, error) {
	return nil, c.w.refusal()
}

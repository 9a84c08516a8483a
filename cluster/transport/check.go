package transport

import (
	"context"
	"runtime/debug"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Metadata keys under which each call says where its caller belongs.
const (
	keyCluster     = "pontoon-cluster"
	keyIncarnation = "pontoon-incarnation"
)

// signed adds this node's cluster id and incarnation to an outgoing call.
func (h *Host) signed(ctx context.Context) context.Context {
	id, inc := h.cfg.Identity()
	return metadata.AppendToOutgoingContext(ctx, keyCluster, id, keyIncarnation, strconv.FormatUint(inc, 10))
}

// check refuses calls from another cluster or another life of this one (T2):
// addresses are reused, and old members come back after a restore.
func (h *Host) check(ctx context.Context, method string) error {
	if h.open[method] {
		return nil
	}
	theirID, theirInc := callerIdentity(ctx)
	ourID, ourInc := h.cfg.Identity()
	if ourID == "" {
		return status.Errorf(codes.FailedPrecondition, "node %s belongs to no cluster yet", h.cfg.NodeID)
	}
	if inc := strconv.FormatUint(ourInc, 10); theirID != ourID || theirInc != inc {
		caller, _ := PeerID(ctx)
		return status.Errorf(codes.FailedPrecondition,
			"node %s belongs to cluster %q, incarnation %s; the caller %s belongs to cluster %q, incarnation %s",
			h.cfg.NodeID, ourID, inc, caller, theirID, theirInc)
	}
	return nil
}

func callerIdentity(ctx context.Context) (clusterID, incarnation string) {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if v := md.Get(key); len(v) == 1 {
			return v[0]
		}
		return ""
	}
	return first(keyCluster), first(keyIncarnation)
}

func (h *Host) checkUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := h.check(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (h *Host) checkStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := h.check(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, ss)
}

func (h *Host) recoverUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer h.caught(info.FullMethod, &err)
	return next(ctx, req)
}

func (h *Host) recoverStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer h.caught(info.FullMethod, &err)
	return next(srv, ss)
}

// caught turns a panic into Internal (T7). What was thrown stays in our log.
func (h *Host) caught(method string, err *error) {
	if v := recover(); v != nil {
		h.cfg.Log.Error("panic in a handler", "method", method, "panic", v, "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "panic in the handler of %s on node %s", method, h.cfg.NodeID)
	}
}

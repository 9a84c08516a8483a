package admin

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// admission wraps every call: identity first, a deadline around it, a kind's code on its error.
type admission struct{}

// WrapUnary implements connect.Interceptor.
func (admission) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		var res connect.AnyResponse
		err := admit(ctx, requestTime, func(ctx context.Context) (err error) {
			res, err = next(ctx, req)
			return err
		})
		if err != nil {
			return nil, err
		}
		return res, nil
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (admission) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return admit(ctx, streamTime, func(ctx context.Context) error { return next(ctx, conn) })
	}
}

// WrapStreamingClient implements connect.Interceptor; nobody calls from here.
func (admission) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func admit(ctx context.Context, most time.Duration, call func(context.Context) error) error {
	if _, ok := identityOf(ctx); !ok {
		return codeOf(meta.Refuse(metav1.Kind_KIND_UNAUTHENTICATED, metav1.Noun_NOUN_UNSPECIFIED,
			"this call needs the operators' socket of the node"))
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if err := call(ctx); err != nil {
		return codeOf(err)
	}
	return nil
}

package admin

import (
	"errors"

	"connectrpc.com/connect"
	"github.com/opencontainers/go-digest"
)

func digestOf(body []byte) string { return digest.FromBytes(body).String() }

func asConnect(err error, target **connect.Error) bool { return errors.As(err, target) }

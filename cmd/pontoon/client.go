package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1/adminv1connect"
)

// socketName is the operators' socket in the data directory.
const socketName = "pontoon.sock"

// callTime bounds a call of the CLI; removals of large repositories have their own.
const callTime = 30 * time.Second

// client calls the node's services over its socket.
type client struct {
	status       adminv1connect.StatusServiceClient
	repositories adminv1connect.RepositoryServiceClient
	locks        adminv1connect.LockServiceClient
	trust        adminv1connect.TrustServiceClient
	members      adminv1connect.MemberServiceClient
	collection   adminv1connect.CollectionServiceClient
	snapshots    adminv1connect.SnapshotServiceClient
}

// dial finds the node. It says at once when nobody is there.
func (a *app) dial(ctx context.Context) (*client, error) {
	path, err := a.socketPath()
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, unreachable(path, err)
	}
	_ = c.Close() // it was only to see who is there
	hc := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}}
	const base = "http://socket"
	return &client{
		status:       adminv1connect.NewStatusServiceClient(hc, base, connect.WithProtoJSON()),
		repositories: adminv1connect.NewRepositoryServiceClient(hc, base, connect.WithProtoJSON()),
		locks:        adminv1connect.NewLockServiceClient(hc, base, connect.WithProtoJSON()),
		trust:        adminv1connect.NewTrustServiceClient(hc, base, connect.WithProtoJSON()),
		members:      adminv1connect.NewMemberServiceClient(hc, base, connect.WithProtoJSON()),
		collection:   adminv1connect.NewCollectionServiceClient(hc, base, connect.WithProtoJSON()),
		snapshots:    adminv1connect.NewSnapshotServiceClient(hc, base), // binary: it carries files
	}, nil
}

// socketPath is what --socket says, else what the configuration of the node here implies.
func (a *app) socketPath() (string, error) {
	if a.socket != "" {
		return a.socket, nil
	}
	c, err := loadConfig(a.config, a.host)
	if err != nil {
		return "", err
	}
	return filepath.Join(c.Cluster.DataDir, socketName), nil
}

// unreachable says why there is no node at path, and what to do.
func unreachable(path string, err error) error {
	advice := err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		advice = "no node runs here: start one with `pontoon serve`, or name its socket with --socket or its configuration with --config"
	case errors.Is(err, fs.ErrPermission):
		advice = fmt.Sprintf("it belongs to another user: call as root or as the user that runs the node (you are %d)", os.Geteuid())
	}
	return &codedError{exitUnavailable, fmt.Errorf("%s: %s", path, advice)}
}

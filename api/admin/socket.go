package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/pontoon-registry/pontoon/meta/policy"
)

// pathBound is the longest socket path in bytes; the kernels allow 104 to 108 with the ending zero.
const pathBound = 103

// probeTime is how long a process behind an old socket has to take a connection.
const probeTime = time.Second

// Listen opens the operators' socket at path with mode 0600. A socket that nobody
// listens on (its process died) is replaced; one that answers, and a file that is no
// socket, are refused. Connections of other users than root and our own are closed
// and logged. Close removes the socket.
func Listen(ctx context.Context, path string, log *slog.Logger) (net.Listener, error) {
	if len(path) > pathBound {
		return nil, fmt.Errorf("socket %s: got a path of %d bytes, expected at most %d: choose a shorter cluster.datadir",
			path, len(path), pathBound)
	}
	if err := clearStale(ctx, path); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the operators' socket: %w", err)
	}
	// Between Listen and Chmod the peer check alone guards; the mode is the second lock, not the first.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the operators' socket: %w", err), l.Close())
	}
	return &socket{Listener: l, log: log}, nil
}

// clearStale removes a socket whose process is gone.
func clearStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the operators' socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("socket %s: a file is in its place: remove it", path)
	}
	dialer := net.Dialer{Timeout: probeTime}
	c, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("socket %s: another pontoon process answers on it: "+
			"stop that one, or give this one a cluster.datadir of its own", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("look who is behind the operators' socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace the operators' socket of a dead process: %w", err)
	}
	return nil
}

// socket lets only the right users in.
type socket struct {
	net.Listener
	log *slog.Logger
}

// Accept answers the next connection of a user who may.
func (s *socket) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		id, err := identify(c)
		if err == nil {
			return &peer{Conn: c, id: id}, nil
		}
		s.log.Warn("operators' socket: connection refused", "reason", err)
		_ = c.Close()
	}
}

// peer is a connection whose other end is known.
type peer struct {
	net.Conn
	id policy.Identity
}

// ConnContext is for http.Server.ConnContext: it says who sits at the other end
// of a connection that a Listen listener accepted, and nothing of others.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.(*peer); ok {
		return withIdentity(ctx, p.id)
	}
	return ctx
}

// identify asks the kernel who is at the other end, and whether that user may.
func identify(c net.Conn) (policy.Identity, error) {
	uid, err := peerUID(c)
	if err != nil {
		return policy.Identity{}, fmt.Errorf("read peer credentials: %w", err)
	}
	if err := permit(uid, os.Geteuid()); err != nil {
		return policy.Identity{}, err
	}
	return policy.Identity{Name: nameOf(uid), Method: "socket"}, nil
}

// permit lets root in, and the user that runs the node.
func permit(uid, own int) error {
	if uid != 0 && uid != own {
		return fmt.Errorf("user id %d is neither root nor %d, who runs this node", uid, own)
	}
	return nil
}

func nameOf(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid:" + strconv.Itoa(uid)
}

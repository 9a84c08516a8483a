package blobstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// versitygwInstall is how to get the server that the tests run against.
const versitygwInstall = "go install github.com/versity/versitygw/cmd/versitygw@v1.8.0"

// S3Server says how to reach a running S3 server.
type S3Server struct {
	// Endpoint is a URL with scheme, host and port.
	Endpoint             string
	AccessKey, SecretKey string
	// Bucket exists.
	Bucket string
}

// Server is a versitygw process that keeps its objects as plain files below a directory.
type Server struct {
	S3Server
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
}

// StartS3 starts a versitygw with an empty bucket for the time of the test. The
// test fails, saying how to install it, where there is none.
func StartS3(t testing.TB) S3Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "pontoon-s3-") // not t.TempDir: the server may still write while that is removed
	if err != nil {
		t.Fatal(err)
	}
	server, err := NewS3(t.Context(), dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return server.S3Server
}

// NewS3 starts a versitygw on a free loopback port with its files in dir and
// its output to log, and waits until it answers. The caller stops it; the end of ctx after that does not.
func NewS3(ctx context.Context, dir string, log io.Writer) (*Server, error) {
	return startS3(ctx, dir, log, "http")
}

// NewS3TLS is NewS3 over TLS with a certificate for 127.0.0.1, files in PEM.
func NewS3TLS(ctx context.Context, dir string, log io.Writer, certFile, keyFile string) (*Server, error) {
	return startS3(ctx, dir, log, "https", "--cert", certFile, "--key", keyFile)
}

func startS3(ctx context.Context, dir string, log io.Writer, scheme string, flags ...string) (*Server, error) {
	binary, err := findVersitygw()
	if err != nil {
		return nil, err
	}
	bucket := "pontoon"
	if err := os.MkdirAll(filepath.Join(dir, bucket), 0o750); err != nil {
		return nil, fmt.Errorf("start versitygw: %w", err)
	}
	for range 5 { // another process may take the port between our look and its start
		address, err := freeAddress(ctx)
		if err != nil {
			return nil, fmt.Errorf("start versitygw: %w", err)
		}
		s := &Server{
			S3Server: S3Server{Endpoint: scheme + "://" + address, AccessKey: "pontoon", SecretKey: "pontoon-secret", Bucket: bucket},
			exited:   make(chan struct{}),
		}
		args := append([]string{"--port", address, "--access", s.AccessKey, "--secret", s.SecretKey, "--quiet", "--keep-alive"}, flags...)
		s.cmd = exec.Command(binary, append(args, "posix", dir)...) //nolint:noctx // it outlives ctx; Stop ends it
		s.cmd.Stdout, s.cmd.Stderr = log, log
		if err := s.cmd.Start(); err != nil {
			return nil, fmt.Errorf("start versitygw: %w", err)
		}
		go func() {
			defer close(s.exited)
			_ = s.cmd.Wait() // killed by Stop, or ended by itself: then it does not answer
		}()
		if s.answers(ctx, address) {
			return s, nil
		}
		s.Stop()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start versitygw: %w", context.Cause(ctx))
		}
	}
	return nil, errors.New("start versitygw: it did not answer in five attempts; its output says why")
}

// answers waits, bounded, until the port takes connections or the process has ended.
func (s *Server) answers(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close() // it was only to see whether someone listens
		}
		select {
		case <-s.exited:
			return false
		case <-ctx.Done():
			return false
		case <-tick.C:
			if err == nil {
				return true
			}
		}
	}
}

// Stop kills the process and waits for its end.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill() // an error says that it has ended
	<-s.exited
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// findVersitygw looks in PATH, GOBIN and GOPATH/bin.
func findVersitygw() (string, error) {
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path, nil
	}
	var folders []string
	if bin := os.Getenv("GOBIN"); bin != "" {
		folders = append(folders, bin)
	}
	for _, p := range filepath.SplitList(os.Getenv("GOPATH")) {
		folders = append(folders, filepath.Join(p, "bin"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		folders = append(folders, filepath.Join(home, "go", "bin"))
	}
	for _, folder := range folders {
		path := filepath.Join(folder, "versitygw")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("versitygw is not installed: looked in PATH, %s; get it with: %s", strings.Join(folders, ", "), versitygwInstall)
}

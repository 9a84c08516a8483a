package chaos

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const shippedBalancer = "../deploy/haproxy.cfg"

// newBalancer starts HAProxy as it is shipped in deploy/, with other addresses and, where the nodes speak plain HTTP,
// without TLS in the check. It returns the address that clients use.
func newBalancer(t testing.TB, logs string, nodes []string, tls bool) string {
	t.Helper()
	shipped, err := os.ReadFile(shippedBalancer)
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	config, err := balancerConfig(string(shipped), addr, nodes, tls)
	if err != nil {
		t.Fatal(err)
	}
	runBalancer(t, logs, config, addr)
	return addr
}

// runBalancer starts HAProxy and waits until it listens.
func runBalancer(t testing.TB, logs, config, addr string) {
	t.Helper()
	file := filepath.Join(logs, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, logs, "haproxy", nil, need(t, "haproxy"), "-db", "-f", file)
	eventually(t, 20*time.Second, "HAProxy to listen", func() error {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

var (
	bindLine   = regexp.MustCompile(`(?m)^\s*bind .*$`)
	serverLine = regexp.MustCompile(`(?m)^\s*server .*\n`)
	checkTLS   = regexp.MustCompile(` check-ssl verify none`)
)

// balancerConfig puts other addresses into the shipped config and changes nothing else.
func balancerConfig(shipped, addr string, nodes []string, tls bool) (string, error) {
	for _, line := range []*regexp.Regexp{bindLine, serverLine, checkTLS} {
		if !line.MatchString(shipped) {
			return "", fmt.Errorf("shipped balancer config has no line like %v", line)
		}
	}
	config := bindLine.ReplaceAllLiteralString(shipped, "    bind "+addr)
	if !tls {
		config = checkTLS.ReplaceAllLiteralString(config, "")
	}
	config = strings.TrimRight(serverLine.ReplaceAllLiteralString(config, ""), "\n") + "\n"
	for i, node := range nodes {
		config += fmt.Sprintf("    server node%d %s\n", i+1, node)
	}
	return config, nil
}

func TestTheShippedBalancerConfigIsValid(t *testing.T) {
	shipped, err := os.ReadFile(shippedBalancer)
	if err != nil {
		t.Fatal(err)
	}
	local, err := balancerConfig(string(shipped), "127.0.0.1:25000", []string{"127.0.0.1:25001", "127.0.0.1:25002"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]string{"shipped": string(shipped), "local": local} {
		file := filepath.Join(t.TempDir(), "haproxy.cfg")
		if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if out, err := exec.CommandContext(ctx, need(t, "haproxy"), "-c", "-f", file).CombinedOutput(); err != nil {
			t.Errorf("%s config is refused: %v\n%s\n%s", name, err, out, config)
		}
		if strings.Contains(config, "stick-table") || strings.Contains(config, "cookie") || !strings.Contains(config, "balance roundrobin") {
			t.Errorf("%s config is sticky or not round robin:\n%s", name, config)
		}
	}
}

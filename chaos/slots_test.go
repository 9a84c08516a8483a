package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// slots is HAProxy as shipped with room for more nodes than there are: a server per slot, which is told at run time where
// its node is, as an operator's tooling would.
type slots struct {
	t      testing.TB
	addr   string // that clients use
	socket string
}

var eachServer = regexp.MustCompile(`(?m)^( *server .*)$`)

func newSlots(t testing.TB, logs string, count int) *slots {
	t.Helper()
	shipped, err := os.ReadFile(shippedBalancer)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "chaos-") // short: sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &slots{t: t, addr: freeAddr(t), socket: filepath.Join(dir, "haproxy.sock")}
	var nobody []string
	for range count {
		nobody = append(nobody, freeAddr(t))
	}
	config, err := balancerConfig(string(shipped), s.addr, nobody, false)
	if err != nil {
		t.Fatal(err)
	}
	config = eachServer.ReplaceAllString(config, "$1 disabled")
	config = strings.Replace(config, "global\n", "global\n    stats socket "+s.socket+" mode 600 level admin\n", 1)
	runBalancer(t, logs, config, s.addr)
	answers(t, s.socket)
	return s
}

// point sends a slot's connections to a node that has just become ready.
func (s *slots) point(slot int, addr string) {
	s.t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.command(fmt.Sprintf("set server pontoon/node%d addr %s port %s", slot+1, host, port), "changed|no need to change")
	s.command(fmt.Sprintf("set server pontoon/node%d state ready", slot+1), `^\s*$`)
}

// empty sends no connection to a slot any more. It is for slots whose node has ended.
func (s *slots) empty(slot int) {
	s.t.Helper()
	s.command(fmt.Sprintf("set server pontoon/node%d state maint", slot+1), `^\s*$`)
}

// waitDown waits until HAProxy has noticed that a slot's node does not answer.
func (s *slots) waitDown(slot int) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, fmt.Sprintf("HAProxy to notice that node%d is gone", slot+1), func() error {
		for line := range strings.Lines(s.ask("show servers state pontoon")) {
			// be_id be_name srv_id srv_name srv_addr srv_op_state ...; the state is 0 when it is down.
			if fields := strings.Fields(line); len(fields) > 5 && fields[3] == fmt.Sprintf("node%d", slot+1) && fields[5] == "0" {
				return nil
			}
		}
		return errors.New("it is up")
	})
}

func (s *slots) command(line, want string) {
	s.t.Helper()
	if answer := s.ask(line); !regexp.MustCompile(want).MatchString(answer) {
		s.t.Fatalf("%s: HAProxy answered %q", line, answer)
	}
}

func (s *slots) ask(line string) string {
	s.t.Helper()
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "unix", s.socket)
	if err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	return string(answer)
}

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// namespaces is a network of the test's own: a bridge in a namespace, a namespace for each node, and a cable to the test.
// Packets on it can be lost, and nodes can have any address.
//
//	test, S3 server, HAProxy        10.x.y.1 ──┐
//	node1  namespace              10.x.y.11 ──┼── bridge, in a namespace
//	node2  namespace              10.x.y.12 ──┤
//	node3  namespace              10.x.y.13 ──┘
type namespaces struct {
	t      testing.TB
	name   string // begins the name of all
	subnet string // 10.x.y
	folder string
	addrs  map[string]string // namespace → address
}

// mayIsolate says whether this machine lets us make namespaces and drop packets in them: a container may keep even root from it.
func mayIsolate(t testing.TB) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	cmd := exec.Command(need(t, "iptables"), "-w", "-A", "INPUT", "-p", "udp", "-m", "statistic", "--mode", "random", "--probability", "0.5", "-j", "DROP")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS} // its own: nothing of ours is dropped
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("a namespace in which packets are dropped: %v: %s", err, out)
	}
	return err == nil
}

func newNamespaces(t testing.TB) *namespaces {
	t.Helper()
	s := &namespaces{
		t: t, name: fmt.Sprintf("pn%05x", rand.IntN(1<<20)), folder: t.TempDir(), addrs: map[string]string{},
		subnet: fmt.Sprintf("10.%d.%d", 200+rand.IntN(50), rand.IntN(250)),
	}
	t.Cleanup(func() { // registered first: the processes in them have ended
		for name := range s.addrs {
			s.ip("netns", "del", s.name+name)
		}
		s.ip("netns", "del", s.name)
	})
	s.ip("netns", "add", s.name)
	s.in("", "ip", "link", "add", "bridge", "type", "bridge")
	s.in("", "ip", "link", "set", "bridge", "up")
	cable := s.name + "t"
	s.ip("link", "add", cable, "type", "veth", "peer", "name", "test", "netns", s.name)
	s.ip("addr", "add", s.host()+"/24", "dev", cable)
	s.ip("link", "set", cable, "up")
	s.in("", "ip", "link", "set", "test", "master", "bridge", "up")
	return s
}

// host is the test's own address.
func (s *namespaces) host() string { return s.subnet + ".1" }

// add makes a namespace with an address, and a program that runs pontoon in it.
func (s *namespaces) add(name string, last int, program string) (runs string) {
	s.t.Helper()
	s.addrs[name] = ""
	s.ip("netns", "add", s.name+name)
	s.in("", "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", s.name+name)
	s.in("", "ip", "link", "set", name, "master", "bridge", "up")
	s.in(name, "ip", "link", "set", "lo", "up")
	s.in(name, "ip", "link", "set", "eth0", "up")
	s.readdress(name, last)
	runs = filepath.Join(s.folder, name)
	script := fmt.Sprintf("#!/bin/sh\nexec %s netns exec %s %s \"$@\"\n", need(s.t, "ip"), s.name+name, program)
	if err := os.WriteFile(runs, []byte(script), 0o755); err != nil {
		s.t.Fatal(err)
	}
	return runs
}

// readdress gives a namespace another address in place of its own. Nobody is left to believe that the old one is where it was.
func (s *namespaces) readdress(name string, last int) {
	s.t.Helper()
	s.addrs[name] = s.subnet + "." + strconv.Itoa(last)
	s.in(name, "ip", "addr", "flush", "dev", "eth0")
	s.in(name, "ip", "addr", "add", s.addrs[name]+"/24", "dev", "eth0")
	s.ip("neigh", "flush", "dev", s.name+"t")
	for other := range s.addrs {
		s.in(other, "ip", "neigh", "flush", "dev", "eth0")
	}
}

// drop throws away what comes into a namespace and matches, and returns what lets it in again and answers how many packets it was.
func (s *namespaces) drop(name string, match ...string) (heal func() int) {
	s.t.Helper()
	rule := append(append([]string{"INPUT"}, match...), "-j", "DROP")
	s.in(name, append([]string{"iptables", "-w", "-A"}, rule...)...)
	return func() int {
		s.t.Helper()
		packets := 0
		for line := range strings.Lines(s.in(name, "iptables", "-w", "-L", "INPUT", "-v", "-x", "-n")) {
			if fields := strings.Fields(line); len(fields) > 3 && fields[2] == "DROP" {
				n, err := strconv.Atoi(fields[0])
				if err != nil {
					s.t.Errorf("iptables: %q: %v", line, err)
				}
				packets += n
			}
		}
		s.in(name, append([]string{"iptables", "-w", "-D"}, rule...)...)
		return packets
	}
}

func (s *namespaces) ip(args ...string) { s.t.Helper(); s.run(append([]string{"ip"}, args...)...) }

// in runs a program in a namespace, the bridge's when it has no name.
func (s *namespaces) in(name string, args ...string) string {
	s.t.Helper()
	return s.run(append([]string{"ip", "netns", "exec", s.name + name}, args...)...)
}

func (s *namespaces) run(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, need(s.t, args[0]), args[1:]...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %v: %s", args, errors.Join(err, ctx.Err()), out)
	}
	return string(out)
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Run keeps contact with the nodes at the join entries ("host" or "host:port",
// asked for anew, and looked up anew, each time) until ctx ends: every second
// while no peer is known and every 15 s afterwards, with jitter. The latter
// matters as well: SWIM never heals a split in which both sides have given each
// other up.
func (g *gossip) Run(ctx context.Context, join func() []string) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		err := g.contact(ctx, join())
		if text := fmt.Sprint(err); err != nil && ctx.Err() == nil && text != said {
			g.cfg.Log.Info("could not reach every join address", "error", err)
			said = text
		}
		every := joinSettled
		if len(g.Peers()) == 0 {
			every = joinAlone
		}
		timer.Reset(every/2 + rand.N(every))
	}
}

// contact joins the addresses behind the entries that are not peers already.
func (g *gossip) contact(ctx context.Context, entries []string) error {
	addrs, err := g.lookup(ctx, entries)
	errs := []error{err}
	known := map[netip.AddrPort]bool{g.self: true}
	for _, p := range g.Peers() {
		known[p.GossipAddr] = true
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	tried := 0
	for _, a := range addrs {
		if known[a] {
			continue
		}
		if tried++; tried > joinMost || ctx.Err() != nil {
			break
		}
		known[a] = true
		if _, err := g.list.Join([]string{a.String()}); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// lookup resolves join entries; one that does not resolve spoils no other.
func (g *gossip) lookup(ctx context.Context, entries []string) (addrs []netip.AddrPort, err error) {
	var errs []error
	for _, e := range entries {
		host, port, err := splitJoin(e, g.cfg.DefaultPort)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		lctx, cancel := context.WithTimeout(ctx, joinLookup)
		ips, err := net.DefaultResolver.LookupNetIP(lctx, "ip", host)
		cancel()
		if err != nil {
			errs = append(errs, fmt.Errorf("join %s: %w", e, err))
		}
		for _, ip := range ips {
			addrs = append(addrs, netip.AddrPortFrom(ip.Unmap(), port))
		}
	}
	return addrs, errors.Join(errs...)
}

// splitJoin reads "host", "host:port", "v6", "[v6]" and "[v6]:port".
func splitJoin(entry string, defaultPort int) (host string, port uint16, err error) {
	bare := strings.TrimSuffix(strings.TrimPrefix(entry, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil || (entry != "" && !strings.Contains(entry, ":")) {
		return bare, uint16(defaultPort), nil
	}
	host, p, err := net.SplitHostPort(entry)
	if err != nil {
		return "", 0, fmt.Errorf("join %q: %w", entry, err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("join %q: must be host or host:port, port from 1 to 65535", entry)
	}
	return host, uint16(n), nil
}

// splitIPPort takes "host:port" apart; a name is looked up once, since SWIM
// tells addresses, not names.
func splitIPPort(field, s string) (ip string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%s %q: %w", field, s, err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%s %q: port must be a number from 0 to 65535", field, s)
	}
	if host == "" {
		return "0.0.0.0", int(n), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), joinLookup)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", 0, fmt.Errorf("%s %q: %w", field, s, err)
	}
	return ips[0].Unmap().String(), int(n), nil
}

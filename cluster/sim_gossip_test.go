package cluster

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// simPackets carries gossip over the simulated network, so that it is cut along with the rest.
type simPackets struct {
	*simListener
	packets chan *memberlist.Packet
}

// openPackets is Config.packets of a machine.
func (h *simHost) openPackets(addr string) (memberlist.Transport, error) {
	l, err := h.listen(addr)
	if err != nil {
		return nil, err
	}
	p := &simPackets{simListener: l, packets: make(chan *memberlist.Packet, 256)}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	l.packets = p.packets
	return p, nil
}

func (p *simPackets) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.addr.IP.To4(), p.addr.Port, nil
}

func (p *simPackets) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *simPackets) StreamCh() <-chan net.Conn           { return p.conns }
func (p *simPackets) Shutdown() error                     { return p.Close() }

func (p *simPackets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.host.dial(ctx, addr)
}

// WriteTo sends a packet, which vanishes where the way is not open.
func (p *simPackets) WriteTo(b []byte, addr string) (time.Time, error) {
	ip, port, err := net.SplitHostPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	w, packet := p.host.net, &memberlist.Packet{Buf: append([]byte(nil), b...), From: p.addr}
	w.mu.Lock()
	defer w.mu.Unlock()
	to := w.hosts[ip]
	if p.host.dead || to == nil || to.dead || w.holds(p.host, to) || w.link(p.host.ip, ip).refused {
		return time.Now(), nil
	}
	time.AfterFunc(w.delay(p.host.ip, ip), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if l := to.listeners[port]; l != nil && l.packets != nil && !to.dead {
			packet.Timestamp = time.Now()
			select {
			case l.packets <- packet:
			default: // as a full socket buffer does
			}
		}
	})
	return time.Now(), nil
}

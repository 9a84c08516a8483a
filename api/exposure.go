package api

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Exposure is what decides whether a registry may listen where it is told to:
// beyond loopback it needs TLS and a login, unless their absence is said aloud.
type Exposure struct {
	// Addr is host:port of the registry listener.
	Addr string
	// TLS: the listener speaks TLS. TLSNone: the operator said `http.tls: none`.
	TLS, TLSNone bool
	// Login: requests must log in. LoginNone: the operator said `auth: none`.
	Login, LoginNone bool
}

// Check answers nil, or what the operator has to decide, one sentence for each decision. It is a pure function.
func (e Exposure) Check() error {
	if Loopback(e.Addr) {
		return nil
	}
	var errs []error
	if !e.TLS && !e.TLSNone {
		errs = append(errs, fmt.Errorf("http.addr %s can be reached from other machines, so passwords and layers would cross the network "+
			"unencrypted: set http.tls.certificate and http.tls.key, or say `http.tls: none` if something in front of it speaks TLS", e.Addr))
	}
	if !e.Login && !e.LoginNone {
		errs = append(errs, fmt.Errorf("http.addr %s can be reached from other machines, so anybody there could push and delete: "+
			"set auth.htpasswd.realm and auth.htpasswd.path, or say `auth: none` if that is meant", e.Addr))
	}
	return errors.Join(errs...)
}

// Loopback says whether a listener at addr (host:port) is reached from this machine only.
// A host name other than localhost, and no host at all, count as reachable.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

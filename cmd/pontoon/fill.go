package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/pontoon-registry/pontoon/api"
	"github.com/pontoon-registry/pontoon/api/auth"
	"github.com/pontoon-registry/pontoon/api/oci"
	"github.com/pontoon-registry/pontoon/cluster"
	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/policy"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The settings of Apply that no key sets yet.
const (
	eventCount = 1_000_000
	eventAge   = 90 * day
)

func (c *Config) clusterConfig(secrets []string, s *store, m *api.Metrics, log *slog.Logger) cluster.Config {
	n := c.Cluster
	cfg := cluster.Config{
		DataDir: n.DataDir, Name: n.NodeName, Release: releaseName(),
		ClusterName: n.Name, ClusterID: n.ID, Voters: int(n.Voters), LogBytes: n.LogBytes,
		Listen: n.Addr, Advertise: n.Advertise, GossipListen: n.GossipAddr, GossipAdvertise: n.GossipAdvertise,
		Join: n.Join, Expect: int(n.Expect), Secrets: secrets,
		Settings: &metav1.Settings{
			Grace: int64(c.GC.Grace), DeleteDelay: int64(c.GC.Delay), UploadLifetime: int64(c.GC.Uploads),
			SparseImages: c.Validation.SparseImages, SparseIndexes: c.Validation.SparseIndexes,
			EventCount: eventCount, EventAge: int64(eventAge),
		},
		PrivateStore: c.Storage.Driver == "filesystem" && !c.Storage.Filesystem.Shared,
		ReadsOffline: n.ReadsOffline, ReadsStale: n.ReadsStale, MinFree: n.MinFree, Ballast: n.Ballast,
		DeadReplace: n.DeadReplace, DeadForget: n.DeadForget, ManualUpgrade: n.Upgrade == "manual",
		Log: log, Metrics: m,
	}
	if n.TLS.Certificate != "" {
		cfg.OperatorCA = &cluster.OperatorCA{Certificate: n.TLS.Certificate, Key: n.TLS.Key, CA: n.TLS.CA, Names: n.TLS.Names}
	}
	if s.objects != nil {
		cfg.Mark = s.mark(log)
	}
	return cfg
}

func (c *Config) authConfig(m *api.Metrics, log *slog.Logger) auth.Config {
	return auth.Config{
		Mode: orText(c.Auth.Kind, auth.ModeNone), Realm: c.Auth.Realm, Path: c.Auth.Path,
		OnLogin:    m.Login,
		OnIdentity: func(ctx context.Context, id policy.Identity) { api.NoteUser(ctx, id.Name) },
		Timing:     api.Spent,
		Log:        log,
	}
}

func (c *Config) ociConfig(l meta.Ledger, s *store, access oci.Access, m *api.Metrics, log *slog.Logger) oci.Config {
	return oci.Config{
		Ledger: l, Store: s.blobs, StoreName: s.name, Access: access,
		Delete: c.Storage.Delete, Redirect: !c.Storage.RedirectDisable,
		CatalogMax: int(c.Catalog), TagsMax: int(c.Tags),
		LocationBase: api.Config{Host: c.HTTP.Host, RelativeURLs: c.HTTP.RelativeURLs}.Base(),
		IdleTimeout:  c.HTTP.IdleBody,
		RequestID:    api.RequestID, Timing: api.Spent, Metrics: m, Log: log,
	}
}

func (r *registry) serverConfig(h host, m *api.Metrics) (api.Config, error) {
	c := r.cfg.HTTP
	tls, err := r.tlsConfig(h)
	if err != nil {
		return api.Config{}, err
	}
	trusted, err := prefixes(c.ProxyProtocol)
	if err != nil {
		return api.Config{}, err
	}
	return api.Config{
		Addr: c.Addr, DebugAddr: c.DebugAddr, OnListen: r.listening,
		Handler: r.oci, Health: r.health, Metrics: m, Log: r.log,
		AccessLogOff: r.cfg.Log.AccessLogDisabled, SlowRequest: r.cfg.Log.SlowRequest,
		TLS: tls, Headers: c.Headers, Host: c.Host, RelativeURLs: c.RelativeURLs, ProxyTrusted: trusted,
		IdleBody: c.IdleBody, MaxConnections: int(c.MaxConnections),
		DrainDelay: orNone(c.DrainDelay), DrainTimeout: c.DrainTimeout,
	}, nil
}

// orNone says "none" as api.Config does: its zero is the default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// prefixes reads ranges; a lone address is the range that holds just it. The table has checked them.
func prefixes(ranges []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			addr, err := netip.ParseAddr(s)
			if err != nil {
				return nil, fmt.Errorf("http.proxyprotocol.trusted: %w", err)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func (r *registry) tlsConfig(h host) (*api.TLSConfig, error) {
	t := r.cfg.HTTP.TLS
	if t.Mode == "none" {
		return nil, nil
	}
	cfg := &api.TLSConfig{
		CertFile: t.Certificate, KeyFile: t.Key, ClientCAs: t.ClientCAs, ClientAuth: t.ClientAuth,
		MinVersion: t.MinimumTLS, CipherSuites: t.CipherSuites,
	}
	if t.Mode == "files" {
		return cfg, nil
	}
	names, err := r.cfg.HTTP.names(h)
	if err != nil {
		return nil, err
	}
	r.log.Info("TLS certificate issued by the cluster", "names", names)
	cfg.GetCertificate, err = r.trust.RenewedPublicCertificate(names)
	return cfg, err
}

// names are those that the cluster's certificate is for: http.tls.names, else the host of http.host, this
// host's name, and the addresses of its interfaces.
func (c HTTPConfig) names(h host) ([]string, error) {
	if len(c.TLS.Names) > 0 {
		return c.TLS.Names, nil
	}
	names := []string{"localhost"}
	if u, err := url.Parse(c.Host); err == nil && u.Hostname() != "" {
		names = append(names, u.Hostname())
	}
	if h.name != "" {
		names = append(names, h.name)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("http.tls.names: list the addresses of this host: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLinkLocalUnicast() {
			names = append(names, ip.IP.String())
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// listening notes where clients reach the registry.
func (r *registry) listening(addr, debug net.Addr) {
	shown := addr.String()
	if host, port, err := net.SplitHostPort(shown); err == nil && net.ParseIP(host).IsUnspecified() {
		shown = net.JoinHostPort("localhost", port)
	}
	u := scheme(r.cfg.HTTP.TLS) + "://" + shown
	r.url.Store(&u)
	args := []any{"registry", addr.String(), "tls", r.cfg.HTTP.TLS.Mode, "auth", orText(r.cfg.Auth.Kind, "none"), "store", r.store.where}
	if debug != nil {
		args = append(args, "debug", debug.String())
	}
	r.log.Info("listening", args...)
}

func (r *registry) registryURL() string {
	if u := r.url.Load(); u != nil {
		return *u
	}
	return ""
}

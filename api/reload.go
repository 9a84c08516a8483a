package api

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// keyring holds the TLS configuration in use and replaces it when its files change (A6).
type keyring struct {
	cfg     TLSConfig
	log     *slog.Logger
	metrics *Metrics
	current atomic.Pointer[tls.Config]

	mu   sync.Mutex // guards seen, and that one reload runs at a time
	seen []stamp
}

// stamp is what a file looked like from outside: kubelet swaps symlinks (inode), editors write in place (time, size).
type stamp struct {
	info os.FileInfo
	err  string
}

func (s stamp) equal(t stamp) bool {
	if s.info == nil || t.info == nil {
		return s.info == nil && t.info == nil && s.err == t.err
	}
	return os.SameFile(s.info, t.info) && s.info.Size() == t.info.Size() && s.info.ModTime().Equal(t.info.ModTime())
}

func stamps(names []string) []stamp {
	list := make([]stamp, len(names))
	for i, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			list[i].err = err.Error()
			continue
		}
		list[i].info = info
	}
	return list
}

func newKeyring(cfg TLSConfig, log *slog.Logger, m *Metrics) *keyring {
	return &keyring{cfg: cfg, log: log, metrics: m}
}

// config is for the listener: every handshake takes the configuration of its moment.
func (k *keyring) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return k.current.Load(), nil
		},
	}
}

// reload reads the files and uses them, or keeps what there is and answers why.
func (k *keyring) reload() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.read()
}

// read is for whoever holds mu. The stamps are taken before the files are read: a change in between is seen next time.
func (k *keyring) read() error {
	k.seen = stamps(k.cfg.files())
	conf, err := k.cfg.load()
	if err != nil {
		k.metrics.reloads.WithLabelValues("failed").Inc()
		return err
	}
	k.current.Store(conf)
	k.metrics.reloads.WithLabelValues("ok").Inc()
	if at := expiry(conf); !at.IsZero() && time.Now().After(at) {
		k.log.Warn("certificate has expired", "file", k.cfg.CertFile, "expired", at)
	}
	return nil
}

// watch looks at the files until ctx ends.
func (k *keyring) watch(ctx context.Context) {
	tick := time.NewTicker(or(k.cfg.ReloadInterval, defaultReload))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.look()
		}
	}
}

func (k *keyring) look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.EqualFunc(stamps(k.cfg.files()), k.seen, stamp.equal) {
		return
	}
	if err := k.read(); err != nil {
		k.log.Error("changed TLS files cannot be used; the previous ones stay in use", "error", err)
		return
	}
	k.log.Info("TLS files read again", "expires", expiry(k.current.Load()))
}

// expiry answers when the certificate of conf ends; zero when it comes from elsewhere.
func expiry(conf *tls.Config) time.Time {
	if conf == nil || len(conf.Certificates) == 0 || conf.Certificates[0].Leaf == nil {
		return time.Time{}
	}
	return conf.Certificates[0].Leaf.NotAfter
}

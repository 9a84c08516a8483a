package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// trustPoll is how often the files of cluster.secretfile and cluster.tls are looked at;
// the registry's certificates and passwords are watched where they are used.
const trustPoll = 10 * time.Second

// reloadOn reads certificates and secrets again at every SIGHUP, and those of the cluster when
// their files change. What cannot be read leaves the old in use, and is tried again.
func (r *registry) reloadOn(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(trustPoll)
	defer tick.Stop()
	seen, failed := r.sightings(), false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			seen = r.sightings()
			failed = !r.reload("SIGHUP", r.reloadSecrets, r.node.ReloadOperatorCA, r.server.Reload)
		case <-tick.C:
			// Two files that belong together are never replaced at the same moment.
			if now := r.sightings(); failed || !slices.Equal(now, seen) {
				seen = now
				failed = !r.reload("a file of the cluster's trust changed", r.reloadSecrets, r.node.ReloadOperatorCA)
			}
		}
	}
}

// sighting is what a file looked like; a change of its content shows in it.
type sighting struct {
	modified time.Time
	size     int64
}

// sightings are those of all files that the cluster's trust is read from.
func (r *registry) sightings() []sighting {
	t := r.cfg.Cluster.TLS
	var all []sighting
	for _, path := range []string{r.cfg.secretPath(), t.Certificate, t.Key, t.CA} {
		all = append(all, sightingOf(path))
	}
	return all
}

func sightingOf(path string) sighting {
	info, err := os.Stat(path)
	if err != nil {
		return sighting{} // a file that is away for a moment is read when it is back
	}
	return sighting{info.ModTime(), info.Size()}
}

// reload says whether every step succeeded.
func (r *registry) reload(why string, steps ...func() error) bool {
	var errs []error
	for _, step := range steps {
		errs = append(errs, step())
	}
	if err := errors.Join(errs...); err != nil {
		r.log.Error("reload: what could not be read stays as it was", "why", why, "error", err)
		return false
	}
	r.log.Info("reloaded", "why", why, "secrets", r.trust.SecretIDs())
	return true
}

// reloadSecrets gives new secrets to both authorities; the list is checked before it replaces anything.
func (r *registry) reloadSecrets() error {
	secrets, err := r.cfg.secrets(r.log)
	if err != nil {
		return err
	}
	if err := r.trust.Reload(secrets); err != nil {
		return err
	}
	return r.node.SetSecrets(secrets)
}

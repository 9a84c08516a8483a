package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// secretPoll is how often the secret's file is looked at; certificates and
// passwords are watched where they are used.
const secretPoll = 10 * time.Second

// reloadOn reads certificates and secrets again at every SIGHUP, and the secrets when their
// file changes. What cannot be read leaves the old in use.
func (r *registry) reloadOn(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(secretPoll)
	defer tick.Stop()
	seen := sightingOf(r.cfg.secretPath())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			r.reload("SIGHUP", r.reloadSecrets, r.server.Reload)
		case <-tick.C:
			now := sightingOf(r.cfg.secretPath())
			if now == seen {
				continue
			}
			seen = now
			r.reload("secret file changed", r.reloadSecrets)
		}
	}
}

// sighting is what a file looked like; a change of its content shows in it.
type sighting struct {
	modified time.Time
	size     int64
}

func sightingOf(path string) sighting {
	info, err := os.Stat(path)
	if err != nil {
		return sighting{} // a file that is away for a moment is read when it is back
	}
	return sighting{info.ModTime(), info.Size()}
}

func (r *registry) reload(why string, steps ...func() error) {
	var errs []error
	for _, step := range steps {
		errs = append(errs, step())
	}
	if err := errors.Join(errs...); err != nil {
		r.log.Error("reload: what could not be read stays as it was", "why", why, "error", err)
		return
	}
	r.log.Info("reloaded", "why", why)
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

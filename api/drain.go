package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// cutGrace is how long handlers may take to end after their connections were cut; debugGrace how long a
// scrape may take to end when the server does.
const (
	cutGrace   = 10 * time.Second
	debugGrace = time.Second
)

// DrainBound is how long Run takes at most once its context has ended, where no disk hangs and no log.
func (s *Server) DrainBound() time.Duration {
	return s.cfg.DrainDelay + s.cfg.DrainTimeout + cutGrace + debugGrace
}

// drain ends the registry listener without losing what can still end by itself (A4).
//
//	unready, answers say "go elsewhere" ── DrainDelay ── listener closed ── no request left, or DrainTimeout ── cut
func (s *Server) drain(base context.Context, front *http.Server, cut context.CancelCauseFunc) error {
	begin := time.Now()
	s.cfg.Health.Drain()
	s.draining.Store(true)
	s.cfg.Log.Info("draining", "delay", s.cfg.DrainDelay, "timeout", s.cfg.DrainTimeout, "requests", s.requests.count())

	pause(base, s.cfg.DrainDelay)
	ctx, cancel := context.WithTimeout(base, s.cfg.DrainTimeout)
	err := front.Shutdown(ctx)
	cancel()
	if err == nil {
		s.cfg.Log.Info("drained", "took", time.Since(begin).String())
		return nil
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("close registry listener: %w", err)
	} else {
		s.cfg.Log.Warn("requests cut at the end of http.draintimeout", "requests", s.requests.count())
		err = nil
	}
	cut(ErrDraining)
	_ = front.Close() // ends reads and writes that stand still
	ctx, cancel = context.WithTimeout(context.WithoutCancel(base), cutGrace)
	defer cancel()
	if !s.requests.wait(ctx) {
		err = errors.Join(err, fmt.Errorf("%d requests did not end within %v of being cut", s.requests.count(), cutGrace))
	}
	return err
}

// endDebug closes the debug listener last, so that the drain could be watched.
func (s *Server) endDebug(base context.Context, back *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(base), debugGrace)
	defer cancel()
	if back.Shutdown(ctx) != nil {
		_ = back.Close()
	}
	if stuck := s.cfg.Health.wait(ctx); len(stuck) > 0 {
		return fmt.Errorf("health checks that did not return: %v", stuck)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

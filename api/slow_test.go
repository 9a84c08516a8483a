package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The tests below run in a bubble with a clock of its own: an hour passes at once.

func dial(t *testing.T, p *pipes) net.Conn {
	t.Helper()
	c, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestHeaderThatNeverEndsIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := startPipes(t, ok, nil)
		c := dial(t, p)
		begin := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := io.WriteString(c, "G"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		_, _ = io.ReadAll(c)
		<-done
		if took := time.Since(begin); took > 11*time.Second {
			t.Errorf("cut after %v", took)
		}
	})
}

func TestIdleConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := startPipes(t, ok, nil)
		c := dial(t, p)
		_, _ = io.WriteString(c, "GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n")
		begin := time.Now()
		if body, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(body), "ok") {
			t.Errorf("%q, %v", body, err)
		}
		if took := time.Since(begin); took != 2*time.Minute {
			t.Errorf("closed after %v", took)
		}
	})
}

// push sends a request of size bytes, one each gap, and answers the status.
func push(t *testing.T, p *pipes, method, path string, size int, gap time.Duration) (int, error) {
	t.Helper()
	c := dial(t, p)
	res := make(chan int, 1)
	go func() {
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			res <- 0
			return
		}
		answer.Body.Close()
		res <- answer.StatusCode
	}()
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: r\r\nContent-Length: %d\r\n\r\n", method, path, size); err != nil {
		return 0, err
	}
	for range size {
		time.Sleep(gap)
		if _, err := c.Write([]byte{'x'}); err != nil {
			break
		}
	}
	return <-res, nil
}

func swallow(errs chan error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		errs <- err
		if err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}
}

func TestSlowButLivingPushIsNeverCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 1)
		_, p := startPipes(t, swallow(errs), nil)
		begin := time.Now()
		status, err := push(t, p, "PATCH", "/v2/a/blobs/uploads/u", 1000, 50*time.Second)
		if err != nil || status != http.StatusCreated {
			t.Errorf("status %d, %v, %v", status, err, <-errs)
		}
		if took := time.Since(begin); took < 13*time.Hour {
			t.Errorf("took %v", took)
		}
	})
}

func TestPushThatStandsStillIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 1)
		_, p := startPipes(t, swallow(errs), nil)
		begin := time.Now()
		status, _ := push(t, p, "PATCH", "/v2/a/blobs/uploads/u", 3, 10*time.Minute)
		if err := <-errs; err == nil || status == http.StatusCreated {
			t.Errorf("status %d, %v", status, err)
		}
		if took := time.Since(begin); took < time.Minute || took > 31*time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

func TestManifestPushHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 1)
		_, p := startPipes(t, swallow(errs), nil)
		// A byte every 5 s is alive, but no manifest needs an hour.
		status, _ := push(t, p, "PUT", "/v2/a/manifests/latest", 1000, 5*time.Second)
		if err := <-errs; err == nil || status == http.StatusCreated {
			t.Errorf("status %d, %v", status, err)
		}
	})
}

// A handler that watches over its body itself is left alone: a deadline in the past is how it interrupts a read.
func TestHandlersOwnDeadlineIsKeptButNotBeyondTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 1)
		_, p := startPipes(t, func(w http.ResponseWriter, r *http.Request) {
			ctl := http.NewResponseController(w)
			if strings.Contains(r.URL.Path, "/manifests/") {
				_ = ctl.SetReadDeadline(time.Now().Add(24 * time.Hour))
			} else {
				_ = ctl.SetReadDeadline(time.Unix(1, 0))
			}
			_, err := io.Copy(io.Discard, r.Body)
			errs <- err
		}, nil)
		begin := time.Now()
		_, _ = push(t, p, "PATCH", "/v2/a/blobs/uploads/u", 1, time.Second)
		if err := <-errs; err == nil || time.Since(begin) > time.Second {
			t.Errorf("the interrupt was lost: %v after %v", err, time.Since(begin))
		}
		_, _ = push(t, p, "PUT", "/v2/a/manifests/x", 1000, 5*time.Second)
		if <-errs == nil {
			t.Error("a handler moved the deadline of a manifest")
		}
	})
}

func TestRequestWithoutLayersEndsAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		causes := make(chan error, 2)
		_, p := startPipes(t, func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				causes <- context.Cause(r.Context())
			case <-time.After(time.Hour):
				causes <- nil
			}
		}, nil)
		for path, want := range map[string]error{"/v2/a/manifests/x": ErrDeadline, "/v2/a/blobs/x": nil} {
			c := dial(t, p)
			_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n", path)
			_, _ = io.ReadAll(c)
			if got := <-causes; !errors.Is(got, want) {
				t.Errorf("%s: cause %v, want %v", path, got, want)
			}
		}
	})
}

// After its body has come, a request may work for long: joining a layer of many pieces takes minutes.
func TestWorkAfterTheBodyIsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		_, p := startPipes(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			time.Sleep(10 * time.Minute)
			_, _ = io.Copy(io.Discard, r.Body) // as a careful handler does before it answers
			time.Sleep(10 * time.Minute)
			ended <- r.Context().Err()
			w.WriteHeader(http.StatusCreated)
		}, nil)
		status, err := push(t, p, "PUT", "/v2/a/blobs/uploads/u", 5, time.Second)
		if cut := <-ended; cut != nil || err != nil || status != http.StatusCreated {
			t.Errorf("status %d, %v, context %v", status, err, cut)
		}
	})
}

// pull reads an answer byte by byte, one each gap, and answers how much came.
func pull(t *testing.T, p *pipes, gap time.Duration, limit int) int {
	t.Helper()
	c := dial(t, p)
	_, _ = io.WriteString(c, "GET /v2/a/blobs/x HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n")
	buf, n := make([]byte, 1024), 0
	for n < limit {
		time.Sleep(gap)
		m, err := c.Read(buf)
		n += m
		if err != nil {
			return n
		}
	}
	return n
}

func TestSlowPullIsNotCutButOneThatTakesNothingIs(t *testing.T) {
	const size = mib
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		_, p := startPipes(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1048576")
			_, err := io.Copy(w, strings.NewReader(strings.Repeat("x", size)))
			ended <- err
		}, nil)
		if n := pull(t, p, 200*time.Millisecond, 2*size); n < size {
			t.Errorf("slow pull got %d bytes, handler %v", n, <-ended)
		}
		<-ended
		begin := time.Now()
		c := dial(t, p)
		_, _ = io.WriteString(c, "GET /v2/a/blobs/x HTTP/1.1\r\nHost: r\r\n\r\n")
		if err := <-ended; err == nil || time.Since(begin) > 2*time.Minute {
			t.Errorf("a client that took nothing was cut after %v with %v", time.Since(begin), err)
		}
	})
}

func TestBodyThatIsNeverSentHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := startPipes(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized) // reads nothing
		}, nil)
		c := dial(t, p)
		begin := time.Now()
		_, _ = io.WriteString(c, "PATCH /v2/a/blobs/uploads/u HTTP/1.1\r\nHost: r\r\nContent-Length: 100000\r\n\r\n")
		_, _ = io.ReadAll(c)
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("the connection was held for %v", took)
		}
	})
}

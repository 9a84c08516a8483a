package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// fakeNode answers its name, and /readyz as told.
type fakeNode struct {
	*httptest.Server
	ready atomic.Bool
}

func newFakeNode(t *testing.T, name string) *fakeNode {
	t.Helper()
	n := &fakeNode{}
	n.ready.Store(true)
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/hang":
			<-r.Context().Done()
		case r.URL.Path == "/readyz" && !n.ready.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = fmt.Fprint(w, name)
		}
	}))
	t.Cleanup(n.Close)
	return n
}

// balanced runs a balancer before nodes a and b, both ready.
func balanced(t *testing.T) (a, b *fakeNode, bal *balancer, url string, stop func() error) {
	t.Helper()
	a, b = newFakeNode(t, "a"), newFakeNode(t, "b")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bal = newBalancer(a.Listener.Addr().String(), b.Listener.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- bal.Run(ctx, l) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(time.Minute):
			return errors.New("the balancer did not end")
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	awaitReady(t, bal, true, true)
	return a, b, bal, "http://" + l.Addr().String(), stop
}

// awaitReady waits until the balancer sees its nodes as told.
func awaitReady(t *testing.T, b *balancer, want ...bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		same := true
		for i, back := range b.backends {
			same = same && back.ready.Load() == want[i]
		}
		if same {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the balancer does not see %v", want)
		}
	}
}

func ask(t *testing.T, url string) string {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	res, err := hc.Get(url)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// quickly does a try, which answers what is wrong, and another one where that took so long that a probe may have failed
// meanwhile: on a machine that stands still the balancer leaves out who is ready.
func quickly(t *testing.T, try func() (wrong string)) {
	t.Helper()
	for range 20 {
		began := time.Now()
		wrong := try()
		if wrong == "" {
			return
		}
		if time.Since(began) < balancerProbe {
			t.Fatal(wrong)
		}
	}
	t.Fatal("twenty tries took longer than a probe may")
}

// fourFromB says what is wrong unless the next four connections are b's.
func fourFromB(t *testing.T, url string) string {
	t.Helper()
	for range 4 {
		if got := ask(t, url); got != "b" {
			return fmt.Sprintf("got %s, expected b", got)
		}
	}
	return ""
}

func TestConnectionsAreDealtInTurn(t *testing.T) {
	quickly(t, func() string {
		_, _, _, url, _ := balanced(t)
		first, second := ask(t, url), ask(t, url)
		if first == second || ask(t, url) != first || ask(t, url) != second {
			return fmt.Sprintf("got %s and %s, and then not in turn", first, second)
		}
		return ""
	})
}

func TestANodeThatIsNotReadyGetsNoConnection(t *testing.T) {
	quickly(t, func() string {
		a, _, bal, url, _ := balanced(t)
		a.ready.Store(false)
		awaitReady(t, bal, false, true)
		wrong := fourFromB(t, url)
		a.ready.Store(true)
		awaitReady(t, bal, true, true)
		return wrong
	})
}

func TestANodeThatRefusesIsLeftOutAtOnce(t *testing.T) {
	quickly(t, func() string {
		a, _, _, url, _ := balanced(t)
		a.Close()
		return fourFromB(t, url)
	})
}

func TestTheBalancerEndsWithItsConnections(t *testing.T) {
	_, _, _, url, stop := balanced(t)
	answered := make(chan string, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/hang", nil)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	conn, err := net.Dial("tcp", req.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	go func() {
		_, _ = fmt.Fprintf(conn, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
		close(sent)
		_, err := io.ReadAll(conn)
		answered <- fmt.Sprint(err)
	}()
	<-sent
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-answered:
	case <-time.After(time.Minute):
		t.Error("the connection outlived the balancer")
	}
}

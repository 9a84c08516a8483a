package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// load is what a run of equal requests gave.
type load struct {
	requests  int
	errors    int
	perSecond float64
	latencies []time.Duration
}

func (l load) String() string {
	return fmt.Sprintf("%.0f/s, p50 %v, p99 %v, %d errors", l.perSecond, percentile(l.latencies, 50), percentile(l.latencies, 99), l.errors)
}

// hammer sends one GET over and over on each of the connections, kept alive, for a time. It writes and reads the bytes
// itself: on a machine that runs server and client alike, a heavier client would be what is measured.
func hammer(t testing.TB, addr, path, accept string, connections int, during time.Duration) load {
	t.Helper()
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nAccept: " + accept + "\r\n\r\n")
	results := make([]load, connections)
	failures := make([]error, connections)
	ctx, cancel := context.WithTimeout(context.Background(), during+10*time.Second)
	defer cancel()
	began := time.Now()
	var group sync.WaitGroup
	for i := range connections {
		group.Go(func() {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				failures[i] = err
				return
			}
			defer conn.Close()
			if err := conn.SetDeadline(began.Add(during + 10*time.Second)); err != nil {
				failures[i] = err
				return
			}
			failures[i] = results[i].drive(conn, request, began.Add(during))
		})
	}
	group.Wait()
	took := time.Since(began)
	var sum load
	for _, r := range results {
		sum.requests += r.requests
		sum.errors += r.errors
		sum.latencies = append(sum.latencies, r.latencies...)
	}
	sum.perSecond = float64(sum.requests) / took.Seconds()
	if err := errors.Join(failures...); err != nil {
		t.Errorf("load on %s: %v", addr, err)
	}
	return sum
}

// drive repeats one request on one connection until the end.
func (l *load) drive(conn net.Conn, request []byte, end time.Time) error {
	in := bufio.NewReaderSize(conn, 16<<10)
	for at := time.Now(); at.Before(end); {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		ok, err := skipAnswer(in, "200")
		if err != nil {
			return err
		}
		now := time.Now()
		l.latencies = append(l.latencies, now.Sub(at))
		at = now
		l.requests++
		if !ok {
			l.errors++
		}
	}
	return nil
}

// skipAnswer reads one HTTP/1.1 answer of a known length and tells whether it had the wanted status.
func skipAnswer(in *bufio.Reader, status string) (bool, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return false, err
	}
	ok := len(line) > 12 && string(line[9:12]) == status
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		if len(line) <= 2 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name) {
			if length, err = strconv.Atoi(strings.TrimSpace(string(line[len(name):]))); err != nil {
				return false, fmt.Errorf("content length: %w", err)
			}
		}
	}
	if length < 0 {
		return false, errors.New("answer without a content length")
	}
	_, err = in.Discard(length)
	return ok, err
}

func TestAnswersAreSkippedToTheirEnd(t *testing.T) {
	const answers = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nA: b\r\n\r\n"
	in := bufio.NewReader(strings.NewReader(answers))
	var got []bool
	for {
		ok, err := skipAnswer(in, "200")
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ok)
	}
	if !slices.Equal(got, []bool{true, false}) {
		t.Fatalf("got %v", got)
	}
}

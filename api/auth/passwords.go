package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how often the file is looked at, at most: with requests, never without.
const checkEvery = time.Second

// racy is the age below which a file's time does not prove that it has not changed since: file systems
// keep coarse times, so a second write may leave time and size as they were.
const racy = 2 * time.Second

// passwords are the users of a file that is read again when it changes.
type passwords struct {
	path  string
	log   *slog.Logger
	judge *judge
	key   [32]byte // for what is remembered of logins (U3)
	ttl   time.Duration

	current atomic.Pointer[userSet]
	next    atomic.Int64 // when the file is looked at again, in nanoseconds since start
	start   time.Time

	mu   sync.Mutex // guards seen, and that one goroutine reads the file at a time
	seen sighting
}

// sighting is what the file looked like when it was last read.
type sighting struct {
	info os.FileInfo
	sum  [sha256.Size]byte
	// settled: the file was old enough when read for its time to tell of any later change.
	settled bool
	fault   string
}

func openPasswords(c Config) (*passwords, error) {
	p := &passwords{path: c.Path, log: c.Log, judge: newJudge(c.Wait), ttl: c.Remember, start: time.Now()}
	_, _ = rand.Read(p.key[:]) // never fails (crypto/rand)
	p.next.Store(int64(checkEvery))
	users, seen, err := p.read()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.Path, err)
	}
	p.current.Store(newUserSet(users, p.ttl))
	p.seen = seen
	return p, nil
}

// read reads and parses the whole file.
func (p *passwords) read() (map[string][]byte, sighting, error) {
	f, err := os.Open(p.path)
	if err != nil {
		return nil, sighting{}, err
	}
	defer f.Close()
	var s sighting
	if s.info, err = f.Stat(); err != nil {
		return nil, sighting{}, err
	}
	if !s.info.Mode().IsRegular() {
		return nil, s, fmt.Errorf("%s is not a regular file", s.info.Mode().Type())
	}
	s.settled = time.Since(s.info.ModTime()) > racy
	body, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, s, err
	}
	if len(body) > maxFile {
		return nil, s, fmt.Errorf("the file is longer than %d bytes", maxFile)
	}
	s.sum = sha256.Sum256(body)
	users, err := parseHtpasswd(body)
	return users, s, err
}

// set answers the users of now. One request in a second looks at the file; the others do not wait for it.
func (p *passwords) set() *userSet {
	now := int64(time.Since(p.start))
	if next := p.next.Load(); now >= next && p.next.CompareAndSwap(next, now+int64(checkEvery)) {
		p.look()
	}
	return p.current.Load()
}

func (p *passwords) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, err := os.Stat(p.path)
	if err == nil && p.seen.settled && p.seen.info != nil && os.SameFile(info, p.seen.info) &&
		info.Size() == p.seen.info.Size() && info.ModTime().Equal(p.seen.info.ModTime()) {
		return
	}
	users, seen, err := p.read()
	if err != nil {
		seen.fault = err.Error()
		if seen.fault != p.seen.fault {
			p.log.Warn("changed htpasswd file cannot be used; the users before it stay", "path", p.path, "error", err)
		}
		p.seen = seen
		return
	}
	if !bytes.Equal(seen.sum[:], p.seen.sum[:]) {
		p.current.Store(newUserSet(users, p.ttl))
		p.log.Info("htpasswd file read again", "path", p.path, "users", len(users))
	}
	p.seen = seen
}

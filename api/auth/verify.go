package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/singleflight"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// The results of a login, for Config.OnLogin.
const (
	loginOK     = "ok"
	loginFailed = "failed"
	loginBusy   = "busy"
)

const (
	// maxRemembered bounds the logins remembered of each outcome.
	maxRemembered = 4096
	// failedTTL is how long a failed login is remembered: a farm of machines with one old password must not
	// keep all cores busy.
	failedTTL = 5 * time.Second
	// maxWaiting bounds the logins that wait for each core.
	maxWaiting = 64
)

// userSet is one reading of the file with what is remembered of logins against it: a new reading starts with nothing.
type userSet struct {
	hashes map[string][]byte
	// decoy is compared against for unknown users (U2): a hash of the highest cost in the file, whose outcome is ignored.
	decoy  []byte
	ok     *memory
	failed *memory
	flight singleflight.Group
}

func newUserSet(hashes map[string][]byte, ttl time.Duration) *userSet {
	u := &userSet{hashes: hashes, ok: newMemory(ttl), failed: newMemory(failedTTL)}
	highest := 0
	for _, hash := range hashes {
		if cost, _ := bcrypt.Cost(hash); cost > highest {
			u.decoy, highest = hash, cost
		}
	}
	return u
}

// credential is what is remembered of a user and a password (U3).
type credential [sha256.Size]byte

func (p *passwords) credential(user, password string) credential {
	mac := hmac.New(sha256.New, p.key[:])
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(user)))
	mac.Write(length[:])
	mac.Write([]byte(user))
	mac.Write([]byte(password))
	return credential(mac.Sum(nil))
}

// verify judges one login. The error is a refusal of KIND_UNAVAILABLE.
func (p *passwords) verify(user, password string) (result string, err error) {
	set, c := p.set(), p.credential(user, password)
	switch {
	case set.ok.has(c):
		return loginOK, nil
	case set.failed.has(c):
		return loginFailed, nil
	}
	// A client opens many connections at once: one computation serves all that bring the same.
	v, err, _ := set.flight.Do(string(c[:]), func() (any, error) {
		return set.compute(p.judge, c, user, password)
	})
	if err != nil {
		return loginBusy, err
	}
	return v.(string), nil //nolint:forcetypeassert // compute answers a string
}

func (u *userSet) compute(j *judge, c credential, user, password string) (string, error) {
	hash, known := u.hashes[user]
	if !known {
		hash = u.decoy
	}
	match, err := j.compare(hash, password)
	switch {
	case err != nil:
		return "", err
	case match && known:
		u.ok.add(c)
		return loginOK, nil
	}
	u.failed.add(c)
	return loginFailed, nil
}

// judge computes bcrypt on a bounded number of cores (U4).
type judge struct {
	cores   chan struct{}
	waiting chan struct{}
	wait    time.Duration
}

func newJudge(wait time.Duration) *judge {
	n := runtime.GOMAXPROCS(0)
	return &judge{cores: make(chan struct{}, n), waiting: make(chan struct{}, n*maxWaiting), wait: wait}
}

func (j *judge) compare(hash []byte, password string) (bool, error) {
	select {
	case j.waiting <- struct{}{}:
		defer func() { <-j.waiting }()
	default:
		return false, busy()
	}
	timer := time.NewTimer(j.wait)
	defer timer.Stop()
	select {
	case j.cores <- struct{}{}:
		defer func() { <-j.cores }()
	case <-timer.C:
		return false, busy()
	}
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil, nil
}

func busy() error {
	return meta.Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_UNSPECIFIED, "too many logins at once, try again")
}

// memory is a bounded set whose members are forgotten after ttl. Safe for concurrent use.
type memory struct {
	ttl   time.Duration
	mu    sync.RWMutex // guards until
	until map[credential]time.Time
}

func newMemory(ttl time.Duration) *memory {
	return &memory{ttl: ttl, until: map[credential]time.Time{}}
}

func (m *memory) has(c credential) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	until, ok := m.until[c]
	return ok && time.Now().Before(until)
}

// add remembers c. A full memory drops what is over, and if nothing is, some member: which one matters to nobody,
// it is computed again.
func (m *memory) add(c credential) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.until) >= maxRemembered {
		for k, until := range m.until {
			if !now.Before(until) {
				delete(m.until, k)
			}
		}
	}
	if len(m.until) >= maxRemembered {
		for k := range m.until {
			delete(m.until, k)
			break
		}
	}
	m.until[c] = now.Add(m.ttl)
}

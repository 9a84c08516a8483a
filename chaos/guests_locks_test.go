package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// guard is what a lock protects: it refuses a token lower than the highest that it has seen, as whoever uses the locks must.
type guard struct {
	mu    sync.Mutex
	token uint64
	value string
}

func (g *guard) write(token uint64, value string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if token < g.token {
		return false
	}
	g.token, g.value = token, value
	return true
}

func (g *guard) read() (uint64, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.token, g.value
}

// lockTTL is the shortest that the registry grants, so that holders overrun it.
const lockTTL = 2 * time.Second

// guardClass is no class of request: it is what the suite itself does.
const guardClass = "guard"

func (s *season) lockRepo() string { return fmt.Sprintf("lock/s%d", s.number) }

// locks takes a lock of the season, writes what it guards, and gives it back, or does not.
func (v *guest) locks(ctx context.Context, s *season, number int) {
	name := s.locks[v.chance.IntN(len(s.locks))]
	a, o := v.lock(ctx, "AcquireLock", check.Operation{Kind: check.LockAcquire, Repo: s.lockRepo(), Key: name, Input: fmt.Sprintf("guest %d", v.id), TTL: lockTTL},
		map[string]any{"name": name, "holder": fmt.Sprintf("guest %d", v.id), "ttl": fmt.Sprintf("%gs", lockTTL.Seconds())})
	if o.Outcome != check.Done {
		return
	}
	token := tokenOf(a)
	if token == 0 {
		v.c.violated("locks", "%s was granted without a token: %s", name, a.body)
		return
	}
	for i := range 1 + v.chance.IntN(3) {
		v.guarded(s, name, token, number*10+i)
		switch v.chance.IntN(6) {
		case 0: // oversleeps, as who is paused does
			pause(ctx, lockTTL+time.Duration(v.chance.IntN(1000))*time.Millisecond)
		case 1, 2:
			_, o := v.lock(ctx, "RenewLock", check.Operation{Kind: check.LockRenew, Repo: s.lockRepo(), Key: name, Token: token, TTL: lockTTL},
				map[string]any{"name": name, "token": strconv.FormatUint(token, 10)})
			if o.Outcome == check.Refused {
				return
			}
		default:
			pause(ctx, time.Duration(v.chance.IntN(150))*time.Millisecond)
		}
	}
	if v.chance.IntN(4) > 0 {
		v.lock(ctx, "ReleaseLock", check.Operation{Kind: check.LockRelease, Repo: s.lockRepo(), Key: name, Token: token},
			map[string]any{"name": name, "token": strconv.FormatUint(token, 10)})
	}
}

// lock makes one call of the lock service of any node.
func (v *guest) lock(ctx context.Context, method string, o check.Operation, message map[string]any) (answer, check.Operation) {
	doors := v.c.a.doors()
	d := doors[v.chance.IntN(len(doors))]
	o.Node, o.Class = d.name, check.Lock
	body, err := json.Marshal(message)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	a, done := v.sendLock(ctx, operator(d.socket), o, request{method: http.MethodPost, path: "/pontoon.admin.v1.LockService/" + method,
		header: typed("application/json"), body: body})
	v.explain(done, http.StatusOK, http.StatusConflict, http.StatusNotFound, http.StatusBadRequest)
	return a, done
}

// sendLock makes a call and puts the token that it answered into the history.
func (v *guest) sendLock(ctx context.Context, client *http.Client, o check.Operation, r request) (answer, check.Operation) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
	defer cancel()
	o.Client, o.Call = v.id, v.c.history.Now()
	a, err := exchange(ctx, client, "http://socket", r)
	o.Return, o.Status, o.Outcome = v.c.history.Now(), a.status, check.Judge(o.Kind, a.status, err)
	switch {
	case err != nil:
		o.Error = err.Error()
	case a.status >= 400:
		o.Error = string(a.body)
	case o.Kind == check.LockAcquire:
		o.Token = tokenOf(a)
	}
	v.c.history.Add(o)
	return a, o
}

func tokenOf(a answer) uint64 {
	var granted struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(a.body, &granted) != nil {
		return 0
	}
	token, _ := strconv.ParseUint(granted.Token, 10, 64)
	return token
}

// guarded writes and reads what the lock protects.
func (v *guest) guarded(s *season, name string, token uint64, number int) {
	g, value := s.guards[name], fmt.Sprintf("guest %d, %d", v.id, number)
	o := check.Operation{Client: v.id, Class: guardClass, Kind: check.GuardWrite, Repo: s.lockRepo(), Key: name, Input: value, Token: token, Call: v.c.history.Now()}
	o.Outcome, o.Status = check.Refused, http.StatusConflict
	if g.write(token, value) {
		o.Outcome, o.Status = check.Done, http.StatusOK
	}
	v.c.history.Add(o)
	if v.chance.IntN(2) == 0 {
		o := check.Operation{Client: v.id, Class: guardClass, Kind: check.GuardRead, Repo: s.lockRepo(), Key: name, Outcome: check.Done, Call: v.c.history.Now()}
		o.Token, o.Output = g.read()
		v.c.history.Add(o)
	}
}

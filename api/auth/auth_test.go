package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/policy"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func entry(t testing.TB, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + string(hash) + "\n"
}

func file(t *testing.T, body string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "htpasswd")
	rewrite(t, name, body)
	return name
}

func rewrite(t *testing.T, name, body string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string, change func(*Config)) *Authenticator {
	t.Helper()
	c := Config{Mode: ModeHtpasswd, Realm: "Registry", Path: path}
	if change != nil {
		change(&c)
	}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(authorization ...string) *http.Request {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/v2/", nil)
	for _, v := range authorization {
		r.Header.Add("Authorization", v)
	}
	return r
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func login(a *Authenticator, user, password string) error {
	_, err := a.Authorize(request(basic(user, password)))
	return err
}

func TestNoneLetsEverybodyDoEverything(t *testing.T) {
	a, err := New(Config{Mode: ModeNone})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{request(), request(basic("x", "y")), request("garbage")} {
		id, err := a.Authorize(r, policy.Access{Repository: "a", Verb: policy.Delete})
		if err != nil || id.Name != "" || id.Method != "anonymous" || !a.Allows(id, policy.Access{Verb: policy.List}) {
			t.Errorf("%+v, %v", id, err)
		}
	}
}

func TestUsersOfTheFileComeInAndNobodyElse(t *testing.T) {
	var noted []string
	a := open(t, file(t, "# users\n\n"+entry(t, "alice", "secret:with:colons")+entry(t, "bob", "")), func(c *Config) {
		c.Realm = `The "Registry"`
		c.OnIdentity = func(_ context.Context, id policy.Identity) { noted = append(noted, id.Name) }
	})
	everything := []policy.Access{{Repository: "a", Verb: policy.Push}, {Repository: "b", Verb: policy.Pull}}
	id, err := a.Authorize(request(basic("alice", "secret:with:colons")), everything...)
	if err != nil || id.Name != "alice" || id.Method != "htpasswd" || !a.Allows(id, everything[0]) {
		t.Errorf("%+v, %v", id, err)
	}
	if a.Allows(policy.Identity{Method: "anonymous"}, everything[1]) {
		t.Error("anonymous may pull")
	}
	for name, r := range map[string]*http.Request{
		"nothing":        request(),
		"wrong password": request(basic("alice", "secret")),
		"unknown":        request(basic("mallory", "secret:with:colons")),
		"other case":     request(basic("Alice", "secret:with:colons")),
		"bearer":         request("Bearer x"),
		"not base64":     request("Basic !!!"),
		"no colon":       request("Basic " + base64.StdEncoding.EncodeToString([]byte("alice"))),
		"no user":        request(basic("", "x")),
		"two headers":    request(basic("alice", "secret:with:colons"), basic("alice", "secret:with:colons")),
		"long user":      request(basic(strings.Repeat("a", 256), "x")),
		"long password":  request(basic("alice", strings.Repeat("a", 1025))),
		"huge":           request("Basic " + strings.Repeat("A", 1<<16)),
	} {
		_, err := a.Authorize(r)
		var challenged interface{ Challenge() []string }
		if meta.KindOf(err) != metav1.Kind_KIND_UNAUTHENTICATED || !errors.As(err, &challenged) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := challenged.Challenge(); !slices.Equal(got, []string{`Basic realm="The \"Registry\""`}) {
			t.Errorf("%s: challenge %q", name, got)
		}
		if strings.Contains(err.Error(), "alice") || strings.Contains(err.Error(), "mallory") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !slices.Equal(noted, []string{"alice"}) {
		t.Errorf("noted %q", noted)
	}
}

func TestSchemeIsReadInAnyCase(t *testing.T) {
	a := open(t, file(t, entry(t, "alice", "pw")), nil)
	for _, h := range []string{"basic", "BASIC", "Basic "} {
		if _, err := a.Authorize(request(h + strings.TrimPrefix(basic("alice", "pw"), "Basic"))); err != nil {
			t.Errorf("%q: %v", h, err)
		}
	}
}

func TestFileThatCannotBeUsedIsNamedAtStart(t *testing.T) {
	hash := strings.TrimPrefix(strings.TrimSpace(entry(t, "", "x")), ":")
	for name, c := range map[string]struct{ body, want string }{
		"empty":       {"", "no user in the file"},
		"comments":    {"# nobody\n\n", "no user in the file"},
		"md5":         {"alice:" + hash + "\n\nbob:$apr1$x$y\n", `line 3: user "bob": expected a bcrypt hash ($2y$…, made with ` + "`htpasswd -B`), got MD5"},
		"sha1":        {"bob:{SHA}xyz\n", `line 1: user "bob"`},
		"plain":       {"bob:hunter2\n", "got plain text or crypt"},
		"no hash":     {"bob:\n", "got nothing"},
		"short":       {"bob:" + hash[:50] + "\n", "of 60 characters, got 50"},
		"alphabet":    {"bob:" + hash[:59] + "!\n", "character 60 is none of"},
		"cost":        {"bob:$2y$31$" + hash[7:] + "\n", "bcrypt cost 31 is not between 4 and 16"},
		"no colon":    {"bob\n", "line 1: expected user:hash"},
		"no name":     {":" + hash + "\n", "line 1: expected a user name"},
		"control":     {"b\x01b:" + hash + "\n", "without control characters"},
		"twice":       {"bob:" + hash + "\nbob:" + hash + "\n", `line 2: user "bob" is there already, in line 1`},
		"two at once": {"a:x\nb:y\n", `line 2: user "b"`},
		"too long":    {strings.Repeat("#", maxFile+1), "longer than 4194304 bytes"},
	} {
		path := file(t, c.body)
		_, err := New(Config{Mode: ModeHtpasswd, Realm: "r", Path: path})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "auth.htpasswd.path: read "+path) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), hash[:50]) {
			t.Errorf("%s: the error shows what must not be shown: %v", name, err)
		}
	}
	for _, path := range []string{"/nonexistent/htpasswd", t.TempDir()} {
		if _, err := New(Config{Mode: ModeHtpasswd, Realm: "r", Path: path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestConfigNamesFieldAndBound(t *testing.T) {
	good := Config{Mode: ModeHtpasswd, Realm: "r", Path: "p"}
	for want, change := range map[string]func(*Config){
		`"" is no mode`: func(c *Config) { c.Mode = "" },
		`"silly" is no mode: expected htpasswd or none`: func(c *Config) { c.Mode = "silly" },
		`auth.htpasswd.realm "": expected 1 to 255`:     func(c *Config) { c.Realm = "" },
		`auth.htpasswd.realm "a\nb": expected 1 to 255`: func(c *Config) { c.Realm = "a\nb" },
		"auth.htpasswd.path: required":                  func(c *Config) { c.Path = "" },
		"auth: Remember 2h0m0s is not between 0 and 1h": func(c *Config) { c.Remember = 2 * time.Hour },
		"auth: Wait 1h0m0s is not between 0 and 1m":     func(c *Config) { c.Wait = time.Hour },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestChangedFileIsReadAgainAndABrokenOneIsNot(t *testing.T) {
	path := file(t, entry(t, "alice", "old"))
	synctest.Test(t, func(t *testing.T) {
		log := &warnings{}
		a := open(t, path, func(c *Config) { c.Log = log.logger() })
		if err := login(a, "alice", "old"); err != nil {
			t.Fatal(err)
		}
		rewrite(t, path, entry(t, "alice", "new"))
		if err := login(a, "alice", "old"); err != nil {
			t.Errorf("the file was looked at within a second: %v", err)
		}
		time.Sleep(time.Second)
		if login(a, "alice", "old") == nil {
			t.Error("the old password still works: what was remembered outlived the file")
		}
		if err := login(a, "alice", "new"); err != nil {
			t.Error(err)
		}

		for _, broken := range []string{"alice:hunter2\n", ""} {
			rewrite(t, path, broken)
			for range 3 {
				time.Sleep(time.Second)
				if err := login(a, "alice", "new"); err != nil {
					t.Errorf("a broken file took the users away: %v", err)
				}
			}
		}
		if got := log.count("cannot be used"); got != 2 {
			t.Errorf("%d warnings for two broken files", got)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := login(a, "alice", "new"); err != nil {
			t.Error(err)
		}
		rewrite(t, path, entry(t, "bob", "pw"))
		time.Sleep(time.Second)
		if err := login(a, "bob", "pw"); err != nil {
			t.Error(err)
		}
		if login(a, "alice", "new") == nil {
			t.Error("a removed user came in")
		}
	})
}

// A second write within the resolution of a file system's clock leaves time and size as they were.
func TestChangeWithoutATraceInTimeAndSizeIsSeen(t *testing.T) {
	path := file(t, entry(t, "alice", "old"))
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, path, nil)
	rewrite(t, path, entry(t, "alice", "new"))
	if err := os.Chtimes(path, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	a.users.look()
	if login(a, "alice", "old") == nil || login(a, "alice", "new") != nil {
		t.Error("not seen")
	}
}

func TestLoginsAreComputedOnceAndForgottenInTime(t *testing.T) {
	path := file(t, entry(t, "alice", "pw"))
	synctest.Test(t, func(t *testing.T) {
		a := open(t, path, nil)
		set, c := a.users.set(), a.users.credential("alice", "pw")
		if set.ok.has(c) {
			t.Error("remembered before")
		}
		if err := login(a, "alice", "pw"); err != nil || !set.ok.has(c) {
			t.Errorf("not remembered: %v", err)
		}
		// While the cores are taken, only what is remembered is answered.
		for range cap(a.users.judge.cores) {
			a.users.judge.cores <- struct{}{}
		}
		if err := login(a, "alice", "pw"); err != nil {
			t.Error(err)
		}
		begin := time.Now()
		if err := login(a, "alice", "wrong"); meta.KindOf(err) != metav1.Kind_KIND_UNAVAILABLE || time.Since(begin) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		time.Sleep(time.Minute)
		if err := login(a, "alice", "pw"); meta.KindOf(err) != metav1.Kind_KIND_UNAVAILABLE {
			t.Errorf("remembered beyond its time: %v", err)
		}
		for range cap(a.users.judge.cores) {
			<-a.users.judge.cores
		}
		if err := login(a, "alice", "pw"); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitingLoginsAreBounded(t *testing.T) {
	a := open(t, file(t, entry(t, "alice", "pw")), nil)
	for range cap(a.users.judge.waiting) {
		a.users.judge.waiting <- struct{}{}
	}
	var results []string
	a.cfg.OnLogin = func(result string) { results = append(results, result) }
	if err := login(a, "alice", "pw"); meta.KindOf(err) != metav1.Kind_KIND_UNAVAILABLE {
		t.Error(err)
	}
	<-a.users.judge.waiting
	_ = login(a, "alice", "pw")
	_ = login(a, "alice", "no")
	_ = login(a, "alice", "no")
	if want := []string{"busy", "ok", "failed", "failed"}; !slices.Equal(results, want) {
		t.Errorf("results %q, want %q", results, want)
	}
}

func TestConnectionsOfOneClientShareOneComputation(t *testing.T) {
	path := file(t, entry(t, "alice", "pw"))
	synctest.Test(t, func(t *testing.T) {
		a := open(t, path, nil)
		for range cap(a.users.judge.cores) {
			a.users.judge.cores <- struct{}{}
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := login(a, "alice", "pw"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := len(a.users.judge.waiting); n != 1 {
			t.Errorf("%d computations of one login", n)
		}
		for range cap(a.users.judge.cores) {
			<-a.users.judge.cores
		}
		wg.Wait()
	})
}

// Whether a user exists must not show: the unknown one costs the comparison of the dearest hash.
func TestUnknownUserCostsAComparison(t *testing.T) {
	cheap := entry(t, "alice", "pw")
	dear, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost+2)
	if err != nil {
		t.Fatal(err)
	}
	u := newUserSet(map[string][]byte{"alice": []byte(strings.TrimSpace(cheap)[len("alice:"):]), "bob": dear}, time.Minute)
	if string(u.decoy) != string(dear) {
		t.Error("the decoy is not the dearest hash")
	}
	a := open(t, file(t, cheap), nil)
	for range cap(a.users.judge.cores) {
		a.users.judge.cores <- struct{}{}
	}
	a.users.judge.wait = time.Millisecond
	if err := login(a, "nobody", "pw"); meta.KindOf(err) != metav1.Kind_KIND_UNAVAILABLE {
		t.Errorf("an unknown user was refused without computing: %v", err)
	}
}

// The decoy's own password must not open the door to names that do not exist.
func TestDecoyOpensNothing(t *testing.T) {
	a := open(t, file(t, entry(t, "alice", "pw")), nil)
	for range 2 { // computed, then remembered
		if login(a, "nobody", "pw") == nil {
			t.Error("an unknown user came in with another's password")
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory(time.Minute)
	for i := range maxRemembered * 2 {
		m.add(credential{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	if len(m.until) > maxRemembered {
		t.Errorf("%d remembered", len(m.until))
	}
}

func TestCredentialsOfDifferentUsersDiffer(t *testing.T) {
	p := &passwords{}
	if p.credential("ab", "c") == p.credential("a", "bc") {
		t.Error("ab:c is a:bc")
	}
	a, b := open(t, file(t, entry(t, "x", "y")), nil), open(t, file(t, entry(t, "x", "y")), nil)
	if a.users.credential("x", "y") == b.users.credential("x", "y") {
		t.Error("two processes share a key")
	}
}

func FuzzHtpasswd(f *testing.F) {
	good := entry(f, "alice", "pw")
	for _, s := range []string{"", "a", ":", "a:b", good, good + good, "\ufeff" + good, strings.ReplaceAll(good, "\n", "\r\n"), "#\n" + good} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		users, err := parseHtpasswd(body)
		if len(users) == 0 && err == nil {
			t.Error("no users and no error")
		}
		for user, hash := range users {
			if !validUser(user) || len(hash) != 60 {
				t.Errorf("%q: %q", user, hash)
			}
			if cost, err := bcrypt.Cost(hash); err != nil || cost > maxCost {
				t.Errorf("%q: cost %d, %v", user, cost, err)
			}
		}
	})
}

func FuzzBasicCredentials(f *testing.F) {
	for _, s := range []string{"", "Basic", "Basic ", basic("a", "b"), basic("a", "b:c"), "basic\t" + basic("a", "b")} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		user, password, err := basicCredentials([]string{header})
		if err != nil {
			return
		}
		if user == "" || len(user) > maxUser || len(password) > maxPassword || strings.Contains(user, ":") {
			t.Errorf("%q: user %q, password of %d bytes", header, user, len(password))
		}
		again, pw, err := basicCredentials([]string{basic(user, password)})
		if err != nil || again != user || pw != password {
			t.Error(fmt.Errorf("%q does not come back: %w", header, err))
		}
	})
}

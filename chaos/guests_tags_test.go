package chaos

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// season is a time in which some repositories are used: tag registers, manifest sets, and locks. When it is over and its
// last request has been answered, its history is judged and its manifests are deleted. So every part of the history that
// is judged together is short, which is what a search for a linearization needs.
type season struct {
	number    int
	registers []string // repositories whose tags are written
	sets      []string // repositories whose manifests are put and deleted by digest
	locks     []string
	guards    map[string]*guard // of the locks
	began     time.Time
	using     sync.WaitGroup

	// held are the manifests that must be there once it is judged, until they are swept.
	held []check.Held

	mu      sync.Mutex // guards what follows
	written map[[2]string]bool
	seen    map[[2]string]string // repository and tag → what it was last seen to be
}

const (
	// seasonTime is how long a season lasts: about two hundred operations of a repository.
	seasonTime      = 12 * time.Second
	registersOf     = 5
	setsOf          = 3
	locksOf         = 2
	tagWorkers      = 8
	setWorkers      = 5
	lockWorkers     = 4
	setSize         = 4
	tagPause        = 40 * time.Millisecond
	janitorsAtOnce  = 4
	seasonsToKeep   = 2
	seasonsUnjudged = 8
)

var tagNames = [...]string{"a", "b", "c"}

func newSeason(number int) *season {
	s := &season{number: number, guards: map[string]*guard{}, written: map[[2]string]bool{}, seen: map[[2]string]string{}}
	for i := range registersOf {
		s.registers = append(s.registers, fmt.Sprintf("register/s%d/r%d", number, i))
	}
	for i := range setsOf {
		s.sets = append(s.sets, fmt.Sprintf("set/s%d/r%d", number, i))
	}
	for i := range locksOf {
		name := fmt.Sprintf("lock/s%d/l%d", number, i)
		s.locks, s.guards[name] = append(s.locks, name), &guard{}
	}
	return s
}

// wrote notes a manifest that may be there.
func (s *season) wrote(repo, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written[[2]string{repo, digest}] = true
}

func (s *season) saw(repo, tag, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[[2]string{repo, tag}] = digest
}

func (s *season) last(repo, tag string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[[2]string{repo, tag}]
}

// empty is the config of all manifests that need none of their own.
var emptyConfig = []byte("{}")

// open makes the repositories ready: each has the empty config, and a manifest that keeps it there.
func (s *season) open(ctx context.Context, v *guest) bool {
	for _, repo := range slices.Concat(s.registers, s.sets) {
		anchor := small("anchor of "+repo, 0)
		// Both again where the second fails: what no manifest names for so long that its grace is over is deleted.
		if !v.until(ctx, func() bool {
			asked, right := time.Now(), []int{http.StatusCreated}
			if !v.pushBlob(ctx, repo, emptyConfig) {
				return false
			}
			_, o := v.do(ctx, check.Operation{Class: check.PutManifest, Kind: "anchor", Repo: "anchors", Input: digestOf(anchor)},
				request{method: http.MethodPut, path: "/v2/" + repo + "/manifests/" + digestOf(anchor), header: typed(mediaManifest), body: anchor})
			if time.Since(asked) > arenaGrace*3/4 {
				right = append(right, http.StatusNotFound) // the config may be collected by now
			}
			v.explain(o, right...)
			return o.Status == http.StatusCreated
		}) {
			return false
		}
		s.wrote(repo, digestOf(anchor))
	}
	s.began = time.Now()
	return true
}

// small is a manifest without layers that says who wrote it, so that no two writes are the same.
func small(who string, number int) []byte {
	config := describe(mediaEmpty, emptyConfig)
	return manifest{MediaType: mediaManifest, ArtifactType: "chaos/small", Config: &config,
		Annotations: map[string]string{"by": who, "number": fmt.Sprint(number)}}.encode()
}

func typed(mediaType string) http.Header { return http.Header{"Content-Type": {mediaType}} }

// pushBlob uploads a small blob: POST, then PUT. It answers whether it is there now.
func (v *guest) pushBlob(ctx context.Context, repo string, content []byte) bool {
	begin := v.c.uploading()
	a, o := v.do(ctx, check.Operation{Class: check.UploadBlob, Kind: "upload-open", Repo: "uploads"},
		request{method: http.MethodPost, path: "/v2/" + repo + "/blobs/uploads/"})
	v.explain(o, http.StatusAccepted)
	if a.status != http.StatusAccepted {
		return false
	}
	_, o = v.do(ctx, check.Operation{Class: check.UploadBlob, Kind: check.BlobPut, Repo: "uploads", Key: repo, Input: digestOf(content)},
		request{method: http.MethodPut, path: withQuery(a.header.Get("Location"), "digest="+digestOf(content)), header: typed("application/octet-stream"), body: content})
	v.explain(o, begin.may(http.StatusCreated)...)
	return o.Status == http.StatusCreated
}

// tags writes, deletes and reads tags of the season's registers.
func (v *guest) tags(ctx context.Context, s *season, number int) {
	repo := s.registers[v.chance.IntN(len(s.registers))]
	tag := tagNames[v.chance.IntN(len(tagNames))]
	switch dice := v.chance.IntN(100); {
	case dice < 24:
		v.putTags(ctx, s, repo, []string{tag}, "", number)
	case dice < 32:
		other := tagNames[v.chance.IntN(len(tagNames))]
		v.putTags(ctx, s, repo, slices.Compact(slices.Sorted(slices.Values([]string{tag, other}))), "", number)
	case dice < 46:
		expect := s.last(repo, tag)
		if expect == "" || v.chance.IntN(6) == 0 {
			expect = check.Absent
		}
		v.putTags(ctx, s, repo, []string{tag}, expect, number)
	case dice < 56:
		v.deleteTag(ctx, s, repo, tag)
	default:
		v.getTag(ctx, s, repo, tag)
	}
}

// putTags writes one tag by its name, or several by one request.
func (v *guest) putTags(ctx context.Context, s *season, repo string, tags []string, expect string, number int) {
	body := small(fmt.Sprintf("guest %d for %s", v.id, repo), number)
	digest := digestOf(body)
	s.wrote(repo, digest)
	path := "/v2/" + repo + "/manifests/" + tags[0]
	if len(tags) > 1 {
		path = "/v2/" + repo + "/manifests/" + digest + "?" + url.Values{"tag": tags}.Encode()
	}
	_, o := v.do(ctx, check.Operation{Class: check.WriteTag, Kind: check.TagPut, Repo: repo, Key: strings.Join(tags, ","), Input: digest, Expect: expect},
		request{method: http.MethodPut, path: path, header: conditional(typed(mediaManifest), expect), body: body, output: named})
	if o.Outcome == check.Done {
		for _, tag := range tags {
			s.saw(repo, tag, digest)
		}
	}
	v.explain(o, http.StatusCreated, http.StatusPreconditionFailed)
}

func conditional(header http.Header, expect string) http.Header {
	switch expect {
	case "":
	case check.Absent:
		header.Set("If-None-Match", "*")
	default:
		header.Set("If-Match", `"`+expect+`"`)
	}
	return header
}

func (v *guest) deleteTag(ctx context.Context, s *season, repo, tag string) {
	expect := ""
	if v.chance.IntN(3) == 0 {
		expect = s.last(repo, tag)
	}
	_, o := v.do(ctx, check.Operation{Class: check.Delete, Kind: check.TagDelete, Repo: repo, Key: tag, Expect: expect},
		request{method: http.MethodDelete, path: "/v2/" + repo + "/manifests/" + tag, header: conditional(http.Header{}, expect)})
	if o.Outcome == check.Done {
		s.saw(repo, tag, "")
	}
	v.explain(o, http.StatusAccepted, http.StatusNotFound, http.StatusPreconditionFailed)
}

func (v *guest) getTag(ctx context.Context, s *season, repo, tag string) {
	method := http.MethodGet
	if v.chance.IntN(2) == 0 {
		method = http.MethodHead
	}
	_, o := v.do(ctx, check.Operation{Class: check.PullByTag, Kind: check.TagGet, Repo: repo, Key: tag},
		request{method: method, path: "/v2/" + repo + "/manifests/" + tag, header: accepts,
			output: v.manifestOutput(repo+":"+tag, "", method == http.MethodHead)})
	if o.Outcome == check.Done && !o.Stale {
		s.saw(repo, tag, o.Output)
	}
	v.c.looked("I7")
	if o.Stale {
		v.c.violated("I7", "%s:%s: a read by tag was answered with a warning that it may be old: %+v", repo, tag, o)
	}
	v.explain(o, http.StatusOK, http.StatusNotFound)
}

// explain notes an answer that no fault explains: a refusal of what is in order. What may be retried is no such answer.
func (v *guest) explain(o check.Operation, statuses ...int) {
	if o.Outcome == check.Unknown && o.Status < 400 || o.Status == http.StatusTooManyRequests || slices.Contains(statuses, o.Status) {
		return
	}
	switch o.Status {
	case 0, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return
	case http.StatusInternalServerError: // Connect's code "unknown", which the operators' socket answers to a lock of which nobody knows
		if strings.Contains(o.Error, "KIND_OUTCOME_UNKNOWN") {
			return
		}
	}
	v.c.violated("answers", "client %d, %s of %s %s at %s: answered %d: %.300s (request %s)", o.Client, o.Kind, o.Repo, o.Key, o.Node, o.Status, o.Error, o.Request)
}

// sets puts, deletes and reads a few manifests of the season's sets by digest.
func (v *guest) sets(ctx context.Context, s *season, _ int) {
	repo := s.sets[v.chance.IntN(len(s.sets))]
	body := small("member of "+repo, v.chance.IntN(setSize))
	digest := digestOf(body)
	path := "/v2/" + repo + "/manifests/" + digest
	switch dice := v.chance.IntN(100); {
	case dice < 30:
		s.wrote(repo, digest)
		_, o := v.do(ctx, check.Operation{Class: check.PutManifest, Kind: check.ManifestPut, Repo: repo, Input: digest},
			request{method: http.MethodPut, path: path, header: typed(mediaManifest), body: body, output: named})
		v.explain(o, http.StatusCreated)
	case dice < 50:
		_, o := v.do(ctx, check.Operation{Class: check.Delete, Kind: check.ManifestDelete, Repo: repo, Input: digest},
			request{method: http.MethodDelete, path: path})
		v.explain(o, http.StatusAccepted, http.StatusNotFound)
	default:
		method := http.MethodGet
		if dice < 70 {
			method = http.MethodHead
		}
		_, o := v.do(ctx, check.Operation{Class: check.PullByDigest, Kind: check.ManifestGet, Repo: repo, Input: digest},
			request{method: method, path: path, header: accepts, output: v.manifestOutput(repo, digest, method == http.MethodHead)})
		v.explain(o, http.StatusOK, http.StatusNotFound)
	}
}

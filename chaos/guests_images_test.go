package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

// shelf is the images of the run: each has one owner, who pushes and deletes it over and over, so that what the owner was
// last answered is what must be there (I1).
type shelf struct {
	images []*shelved

	mu    sync.Mutex // guards the states of the images, and what follows
	count shelfCount
}

// shelfCount is what was done.
type shelfCount struct {
	pushes, again, deletes, pulls, absent int
	uploaded, chunked, mounted, known     int
}

func (c shelfCount) String() string {
	return fmt.Sprintf("%d image pushes, %d of them of deleted content; %d deletions; %d pulls of whole images, %d of deleted ones that were not there; "+
		"blobs: %d uploaded, %d of them in chunks over several nodes, %d mounted, %d there already",
		c.pushes, c.again, c.deletes, c.pulls, c.absent, c.uploaded, c.chunked, c.mounted, c.known)
}

// shelved is one image: always the same content, now here, now deleted.
type shelved struct {
	repo, tag string
	blobs     [][]byte // its config and its layers
	body      []byte
	digest    string

	// Under the shelf's mutex.
	state presence
	once  bool      // it was pushed before
	turn  int       // rises whenever the state changes
	acked time.Time // when the state became what it is
	doubt time.Time // until when a request whose outcome is unknown may yet take effect
}

// presence is what the owner of an image knows of it.
type presence int

const (
	away  presence = iota // never pushed, or its deletion was acknowledged
	here                  // its push was acknowledged
	limbo                 // a push or a deletion has begun and is not acknowledged
)

const (
	// lateTime is how late: who is paused with a request in its socket wakes up and does it, and the leader that it asks may be paused next.
	lateTime     = 45 * time.Second
	imageRepos   = 4
	imageCount   = 120
	imageWorkers = 6
	imagePullers = 6
	sharedLayers = 31
)

func newShelf() *shelf {
	s := &shelf{}
	var shared [][]byte
	for i := range sharedLayers {
		shared = append(shared, noise(fmt.Sprint("shared", i), int64(4_000+i)))
	}
	for i := range imageCount {
		m := &shelved{repo: fmt.Sprintf("image/r%d", i%imageRepos), tag: fmt.Sprintf("t%d", i)}
		m.blobs = [][]byte{fmt.Appendf(nil, `{"image":"%s:%s"}`, m.repo, m.tag), noise(fmt.Sprint("image", i), int64(1_000+300*i)), shared[i%sharedLayers]}
		config := describe(mediaConfig, m.blobs[0])
		m.body = manifest{MediaType: mediaManifest, Config: &config,
			Layers: []descriptor{describe(mediaLayer, m.blobs[1]), describe(mediaLayer, m.blobs[2])}}.encode()
		m.digest = digestOf(m.body)
		s.images = append(s.images, m)
	}
	return s
}

func (s *shelf) set(m *shelved, to presence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.state, m.acked = to, time.Now()
	m.turn++
	switch to {
	case here:
		if s.count.pushes++; m.once {
			s.count.again++
		}
		m.once = true
	case away:
		s.count.deletes++
	}
}

// doubted notes a request of the owner's. Until it cannot take effect any more the image is left alone: a deletion would
// undo a later push that was acknowledged, a push a later deletion.
func (s *shelf) doubted(m *shelved, o check.Operation) {
	if o.Outcome != check.Unknown {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.doubt = time.Now().Add(lateTime)
}

func (s *shelf) certain(m *shelved) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().After(m.doubt)
}

func (s *shelf) did(what func(*shelfCount)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what(&s.count)
}

// look is an image's state with its turn: what was true if the turn is the same later.
func (s *shelf) look(m *shelved) (presence, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.state, m.turn
}

// held are the images that are in a state.
func (s *shelf) held(in presence) (images []*shelved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.images {
		if m.state == in {
			images = append(images, m)
		}
	}
	return images
}

// owner is the id-th of those who push and delete: it works through its own images.
func (v *guest) owner(ctx context.Context, s *shelf, id int) {
	var own []*shelved
	for i := id; i < len(s.images); i += imageWorkers {
		own = append(own, s.images[i])
	}
	for ctx.Err() == nil {
		m := own[v.chance.IntN(len(own))]
		switch state, _ := s.look(m); {
		case !s.certain(m):
		case state != here:
			v.pushImage(ctx, s, m)
		default:
			v.deleteImage(ctx, s, m)
			if v.chance.IntN(2) == 0 && s.certain(m) { // at once, while GC may be after it
				v.pushImage(ctx, s, m)
			}
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// pushImage pushes until the push is acknowledged. Where the run ends before, the image is in limbo.
func (v *guest) pushImage(ctx context.Context, s *shelf, m *shelved) {
	s.set(m, limbo)
	if v.until(ctx, func() bool { return v.attempt(ctx, s, m) }) {
		s.set(m, here)
	}
}

// attempt pushes once. What the registry confirmed is there for the grace, so a manifest that names it is accepted.
func (v *guest) attempt(ctx context.Context, s *shelf, m *shelved) bool {
	asked := time.Now()
	for i, blob := range m.blobs {
		if !v.bring(ctx, s, m.repo, blob, i == 1) {
			return false
		}
	}
	_, o := v.do(ctx, check.Operation{Class: check.PutManifest, Kind: "image-put", Repo: "images", Key: m.repo + ":" + m.tag, Input: m.digest},
		request{method: http.MethodPut, path: "/v2/" + m.repo + "/manifests/" + m.tag, header: typed(mediaManifest), body: m.body})
	s.doubted(m, o)
	v.explain(o, http.StatusCreated, http.StatusNotFound)
	if o.Outcome == check.Refused && time.Since(asked) < arenaGrace*3/4 {
		v.c.violated("I2", "push of %s:%s to %s was refused with %d, %v after its first question, though all that it names was confirmed: %.300s",
			m.repo, m.tag, o.Node, o.Status, time.Since(asked).Round(time.Millisecond), o.Error)
	}
	return o.Status == http.StatusCreated
}

// uploading is when an upload began, and how often the store had damaged what it answered.
type uploading struct {
	c       *guests
	began   time.Time
	damaged int64
}

func (c *guests) uploading() uploading {
	return uploading{c, time.Now(), c.a.s3.Counts()[string(proxy.Corrupt)].Fired}
}

// may are the statuses that one of its requests may have: it is to begin anew, 404, only where the store has damaged its bytes
// on their way, or where it is so old that it was given up.
func (u uploading) may(status int) []int {
	if time.Since(u.began) < arenaUploads-3*time.Second && u.c.a.s3.Counts()[string(proxy.Corrupt)].Fired == u.damaged {
		return []int{status}
	}
	return []int{status, http.StatusNotFound}
}

// bring does what clients do: ask whether a blob is there, mount it from where it may be, else push it.
func (v *guest) bring(ctx context.Context, s *shelf, repo string, content []byte, chunks bool) bool {
	digest := digestOf(content)
	_, o := v.do(ctx, check.Operation{Class: check.PullByDigest, Kind: "blob-head", Repo: "images", Key: repo, Input: digest},
		request{method: http.MethodHead, path: "/v2/" + repo + "/blobs/" + digest})
	v.explain(o, http.StatusOK, http.StatusNotFound)
	switch o.Status {
	case http.StatusOK:
		s.did(func(c *shelfCount) { c.known++ })
		return true
	case http.StatusNotFound:
	default:
		return false
	}
	path := "/v2/" + repo + "/blobs/uploads/"
	begin := v.c.uploading()
	kind, begun := check.Kind("upload-open"), []int{http.StatusAccepted}
	if from := fmt.Sprintf("image/r%d", v.chance.IntN(imageRepos)); from != repo && v.chance.IntN(2) == 0 {
		path, kind, begun = path+"?mount="+digest+"&from="+from, check.BlobMount, append(begun, http.StatusCreated)
	}
	a, o := v.do(ctx, check.Operation{Class: check.UploadBlob, Kind: kind, Repo: "images", Key: repo, Input: digest}, request{method: http.MethodPost, path: path})
	v.explain(o, begun...)
	switch a.status {
	case http.StatusCreated:
		s.did(func(c *shelfCount) { c.mounted++ })
		return true
	case http.StatusAccepted:
	default:
		return false
	}
	location := a.header.Get("Location")
	if chunks && v.chance.IntN(3) == 0 {
		half := len(content) / 2
		for _, cut := range [][2]int{{0, half}, {half, len(content)}} {
			header := typed("application/octet-stream")
			header.Set("Content-Range", fmt.Sprintf("%d-%d", cut[0], cut[1]-1))
			asked := time.Now()
			a, o := v.do(ctx, check.Operation{Class: check.UploadBlob, Kind: "upload-patch", Repo: "images", Key: repo, Input: digest},
				request{method: http.MethodPatch, path: location, header: header, body: content[cut[0]:cut[1]]})
			v.explain(o, begin.may(http.StatusAccepted)...)
			if a.status != http.StatusAccepted {
				return false
			}
			location, begin.began = a.header.Get("Location"), asked // each step renews it
		}
		s.did(func(c *shelfCount) { c.chunked++ })
		content = []byte{}
	}
	_, o = v.do(ctx, check.Operation{Class: check.UploadBlob, Kind: check.BlobPut, Repo: "images", Key: repo, Input: digest},
		request{method: http.MethodPut, path: withQuery(location, "digest="+digest), header: typed("application/octet-stream"), body: content})
	v.explain(o, begin.may(http.StatusCreated)...)
	if o.Status == http.StatusCreated {
		s.did(func(c *shelfCount) { c.uploaded++ })
	}
	return o.Status == http.StatusCreated
}

// deleteImage deletes until that is certain. The push was acknowledged, so the first answer cannot be that it is not there.
func (v *guest) deleteImage(ctx context.Context, s *shelf, m *shelved) {
	s.set(m, limbo)
	first := true
	if v.until(ctx, func() bool {
		_, o := v.do(ctx, check.Operation{Class: check.Delete, Kind: "image-delete", Repo: "images", Key: m.repo + ":" + m.tag, Input: m.digest},
			request{method: http.MethodDelete, path: "/v2/" + m.repo + "/manifests/" + m.digest})
		s.doubted(m, o)
		v.explain(o, http.StatusAccepted, http.StatusNotFound)
		if first && (o.Status == http.StatusAccepted || o.Status == http.StatusNotFound) {
			v.c.looked("I1")
		}
		if first && o.Status == http.StatusNotFound {
			v.c.violated("I1", "deletion of %s:%s (%s) at %s: it is not there, its push was acknowledged: %.300s", m.repo, m.tag, m.digest, o.Node, o.Error)
		}
		first = false
		return o.Status == http.StatusAccepted || o.Status == http.StatusNotFound
	}) {
		s.set(m, away)
	}
}

// puller pulls images, those that are here, byte for byte, and now and then one that is away.
func (v *guest) puller(ctx context.Context, s *shelf) {
	for ctx.Err() == nil {
		m := s.images[v.chance.IntN(len(s.images))]
		v.pullImage(ctx, s, m, m.tag)
		pause(ctx, 60*time.Millisecond)
	}
}

// pullImage pulls one image by its tag or its digest, and judges the answers by what was true all the time.
func (v *guest) pullImage(ctx context.Context, s *shelf, m *shelved, reference string) {
	state, turn := s.look(m)
	class := check.PullByTag
	if v.chance.IntN(2) == 0 {
		reference, class = m.digest, check.PullByDigest
	}
	_, o := v.do(ctx, check.Operation{Class: class, Kind: "image-get", Repo: "images", Key: m.repo + ":" + reference, Input: m.digest},
		request{method: http.MethodGet, path: "/v2/" + m.repo + "/manifests/" + reference, header: accepts, output: v.manifestOutput(m.repo+":"+m.tag, m.digest, false)})
	v.explain(o, http.StatusOK, http.StatusNotFound)
	if now, later := s.look(m); now != state || later != turn {
		return
	}
	switch answered := o.Status == http.StatusOK || o.Status == http.StatusNotFound; {
	case answered && state == here:
		v.c.looked("I1")
	case answered && state == away && m.once:
		v.c.looked("I7")
	}
	switch {
	case state == here && o.Status == http.StatusNotFound:
		v.c.violated("I1", "%s:%s (%s) at %s: acknowledged %v before the request and not there: %.300s", m.repo, reference, m.digest, o.Node, time.Since(m.acked), o.Error)
	case state == away && m.once && o.Status == http.StatusOK && !o.Stale:
		v.c.violated("I7", "%s:%s (%s) at %s: its deletion was acknowledged %v before and it is there", m.repo, reference, m.digest, o.Node, time.Since(m.acked))
	case state == away && o.Status == http.StatusNotFound:
		s.did(func(c *shelfCount) { c.absent++ })
	}
	if state != here || o.Status != http.StatusOK {
		return
	}
	whole := true
	for _, i := range rand.Perm(len(m.blobs))[:2] {
		digest := digestOf(m.blobs[i])
		a, o := v.do(ctx, check.Operation{Class: check.PullByDigest, Kind: "layer-get", Repo: "images", Key: m.repo, Input: digest},
			request{method: http.MethodGet, path: "/v2/" + m.repo + "/blobs/" + digest})
		v.explain(o, http.StatusOK, http.StatusNotFound)
		if now, later := s.look(m); now != state || later != turn {
			return
		}
		if o.Status == http.StatusOK || o.Status == http.StatusNotFound {
			v.c.looked("I2")
		}
		switch {
		case o.Status == http.StatusNotFound:
			v.c.violated("I2", "blob %s of %s:%s at %s: the image is there and its blob is not: %.300s", digest, m.repo, m.tag, o.Node, o.Error)
		case o.Status == http.StatusOK && o.Outcome == check.Done && digestOf(a.body) != digest:
			v.c.violated("I3", "blob %s of %s:%s at %s came as %s, %d bytes", digest, m.repo, m.tag, o.Node, digestOf(a.body), len(a.body))
		}
		whole = whole && o.Outcome == check.Done && o.Status == http.StatusOK
	}
	if whole {
		s.did(func(c *shelfCount) { c.pulls++ })
	}
}

// lister reads the tags of a repository of images, and holds them against what was there, and what was not, all the time.
func (v *guest) lister(ctx context.Context, s *shelf) {
	for i := 0; ctx.Err() == nil; i++ {
		repo := fmt.Sprintf("image/r%d", v.chance.IntN(imageRepos))
		type seen struct {
			state presence
			turn  int
		}
		before := map[*shelved]seen{}
		for _, m := range s.images {
			if m.repo == repo {
				state, turn := s.look(m)
				before[m] = seen{state, turn}
			}
		}
		a, o := v.do(ctx, check.Operation{Class: check.List, Kind: check.TagList, Repo: "images", Key: repo},
			request{method: http.MethodGet, path: "/v2/" + repo + "/tags/list"})
		v.explain(o, http.StatusOK, http.StatusNotFound)
		if o.Outcome == check.Done && (o.Status == http.StatusOK || o.Status == http.StatusNotFound) && !o.Stale {
			tags := namesIn(a.body, "tags")
			for m, was := range before {
				state, turn := s.look(m)
				if turn != was.turn || state == limbo {
					continue
				}
				if listed := slices.Contains(tags, m.tag); listed != (state == here) && m.once {
					v.c.violated("lists", "tags of %s at %s: %s listed %v, its state is %d since %v", repo, o.Node, m.tag, listed, state, time.Since(m.acked))
				}
			}
		}
		pause(ctx, 150*time.Millisecond)
	}
}

// TestAnImageInDoubtIsLeftAlone: a request whose outcome is unknown may take effect after later ones that were acknowledged.
func TestAnImageInDoubtIsLeftAlone(t *testing.T) {
	s := newShelf()
	m := s.images[0]
	s.doubted(m, check.Operation{Outcome: check.Done})
	s.doubted(m, check.Operation{Outcome: check.Refused})
	if !s.certain(m) {
		t.Error("in doubt, though all outcomes are known")
	}
	s.doubted(m, check.Operation{Outcome: check.Unknown})
	s.doubted(m, check.Operation{Outcome: check.Done}) // a later one decides nothing
	if s.certain(m) || !s.certain(s.images[1]) {
		t.Error("an unknown outcome leaves no doubt, or of another image")
	}
}

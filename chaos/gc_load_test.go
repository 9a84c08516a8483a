package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// mill pushes, deletes, pushes again and pulls images that share layers, over a few repositories. One worker owns each
// image: what it was last answered is what must be there.
type mill struct {
	registry string
	name     string        // of its repositories
	grace    time.Duration // gc.grace of the cluster
	images   []*milled
	paces    paces

	mu         sync.Mutex // guards what follows, and the state of the images
	count      millCount
	late       []string
	repeated   []string
	violations []string
}

// paces of one client: the pause between two images.
type paces struct{ push, pull time.Duration }

// milled is one image: always the same content, now here, now deleted.
type milled struct {
	repo, tag string
	config    []byte
	layers    [][]byte
	body      []byte
	digest    string
	big       bool // one of its layers is a multipart upload

	// Under the mill's mutex.
	there bool // its push was acknowledged, and no deletion has begun since
	once  bool // it was pushed before
	turn  int  // rises when a deletion begins, and when a push is acknowledged
}

// millCount is what was done.
type millCount struct {
	pushes, again, deletes, pulls     int
	uploaded, mounted, known, dropped int // blobs that were pushed, mounted, found by HEAD; uploads that were given up
	retries, cutPulls, gone           int
}

func (c millCount) String() string {
	return fmt.Sprintf("%d pushes, %d of them of deleted content; %d deletions, %d pulls (%d cut and repeated, %d overtaken by a deletion); "+
		"blobs: %d uploaded, %d mounted, %d there already; %d uploads given up; %d attempts repeated",
		c.pushes, c.again, c.deletes, c.pulls, c.cutPulls, c.gone, c.uploaded, c.mounted, c.known, c.dropped, c.retries)
}

// newMill makes images of two layers each: one of its own, and one that a few images of other repositories have too. There
// are so many that one is gone for about as long as the grace before it comes again.
func newMill(registry, name string, grace time.Duration, images int) *mill {
	const repositories, shared, every = 4, 61, 40
	m := &mill{registry: registry, name: name, grace: grace, paces: paces{80 * time.Millisecond, 60 * time.Millisecond}}
	var layers [][]byte
	for i := range shared {
		layers = append(layers, noise(fmt.Sprint(name, "shared", i), int64(20_000+i)))
	}
	for i := range images {
		image := &milled{repo: fmt.Sprintf("%s/r%d", name, i%repositories), tag: fmt.Sprintf("t%d", i), big: i%every == 5}
		size := 10_000
		if image.big {
			size = twoParts
		}
		image.config = fmt.Appendf(nil, `{"image":"%s:%s"}`, image.repo, image.tag)
		image.layers = [][]byte{noise(fmt.Sprint(name, i), int64(size+i)), layers[i%shared]}
		described := describe(mediaConfig, image.config)
		image.body = manifest{MediaType: mediaManifest, Config: &described,
			Layers: []descriptor{describe(mediaLayer, image.layers[0]), describe(mediaLayer, image.layers[1])}}.encode()
		image.digest = digestOf(image.body)
		m.images = append(m.images, image)
	}
	return m
}

// twoParts is the size of a layer that becomes a multipart upload.
const twoParts = 9 << 20

// worker is the id-th of count: it pushes and deletes its own images.
func (m *mill) worker(ctx context.Context, id, count int) {
	w := &millWorker{mill: m, r: at(m.registry), chance: rand.New(rand.NewPCG(uint64(id), 1))}
	w.r.client.Transport.(*http.Transport).DisableKeepAlives = id%2 == 1
	defer w.r.client.CloseIdleConnections()
	var own []*milled
	for i := id; i < len(m.images); i += count {
		own = append(own, m.images[i])
	}
	for ctx.Err() == nil {
		image := own[w.chance.IntN(len(own))]
		m.mu.Lock()
		there := image.there
		m.mu.Unlock()
		if !there {
			w.push(image)
		} else {
			w.remove(image)
			if w.chance.IntN(2) == 0 { // at once, while GC may be after it
				w.push(image)
			}
		}
		if w.chance.IntN(12) == 0 {
			w.giveUp()
		}
		pause(ctx, m.paces.push)
	}
}

// millWorker is one client that pushes.
type millWorker struct {
	mill   *mill
	r      *registry
	chance *rand.Rand
	// first is when the registry was first asked about a blob of the push that is under way.
	first time.Time
}

// ask does one request whose answer must be one of the wanted.
func (w *millWorker) ask(method, path string, header http.Header, body []byte, wanted ...int) (answer, error) {
	a, err := w.r.want(context.Background(), wanted[0], method, path, header, body)
	if slices.Contains(wanted, a.status) {
		err = nil
	}
	return a, err
}

// push pushes one image, and repeats what was cut or could not be answered while the leader died. What is said to be
// wrong with the push (4xx) is a violation at once: within the grace, nothing that the registry confirmed may go away.
func (w *millWorker) push(image *milled) {
	m := w.mill
	for retries := 0; ; retries++ {
		w.first = time.Now()
		err := w.attempt(image)
		m.mu.Lock()
		if err == nil {
			m.count.pushes++
			if image.once {
				m.count.again++
			}
			image.there, image.once = true, true
			image.turn++
			m.mu.Unlock()
			return
		}
		what := fmt.Sprintf("%s push of %s:%s, attempt %d, %v after its first question: %v", time.Now().Format("15:04:05.000"),
			image.repo, image.tag, retries+1, time.Since(w.first).Round(time.Millisecond), err)
		var no *refused
		switch {
		case errors.As(err, &no) && no.status < 500 && time.Since(w.first) < m.grace*3/4: // a confirmation is renewed past a quarter
			m.violations = append(m.violations, what)
		case errors.As(err, &no) && no.status < 500:
			m.late = append(m.late, what)
		default:
			m.repeated = append(m.repeated, what)
		}
		m.count.retries++
		if retries == clientRetries {
			m.violations = append(m.violations, "given up: "+what)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		time.Sleep(250 * time.Millisecond << retries)
	}
}

func (w *millWorker) attempt(image *milled) error {
	for _, blob := range append([][]byte{image.config}, image.layers...) {
		if err := w.blob(image.repo, blob); err != nil {
			return err
		}
	}
	_, err := w.ask(http.MethodPut, "/v2/"+image.repo+"/manifests/"+image.tag, http.Header{"Content-Type": {mediaManifest}}, image.body, http.StatusCreated)
	return err
}

// blob does what clients do: ask whether it is there, mount it from where it may be, else push it.
func (w *millWorker) blob(repo string, content []byte) error {
	digest := digestOf(content)
	a, err := w.ask(http.MethodHead, "/v2/"+repo+"/blobs/"+digest, nil, nil, http.StatusOK, http.StatusNotFound)
	if err != nil {
		return err
	}
	if a.status == http.StatusOK {
		w.did(func(c *millCount) { c.known++ })
		return nil
	}
	path := "/v2/" + repo + "/blobs/uploads/"
	if from := w.mill.neighbour(repo, digest); from != "" {
		path += "?mount=" + digest + "&from=" + from
	}
	a, err = w.ask(http.MethodPost, path, nil, nil, http.StatusAccepted, http.StatusCreated)
	if err != nil {
		return err
	}
	if a.status == http.StatusCreated {
		w.did(func(c *millCount) { c.mounted++ })
		return nil
	}
	if err := w.upload(a.header.Get("Location"), content, digest); err != nil {
		return err
	}
	w.did(func(c *millCount) { c.uploaded++ })
	return nil
}

// upload fills an upload that was opened, in one request or, a large one, in three, and cancels it where that fails.
func (w *millWorker) upload(location string, content []byte, digest string) (err error) {
	opened := location
	defer func() {
		if err != nil {
			w.cancel(opened)
		}
	}()
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if len(content) >= twoParts { // in two requests, so that nodes take it over from one another
		const half = twoParts / 2
		for _, part := range [][2]int{{0, half}, {half, len(content)}} {
			if location, err = w.patch(location, part[0], content[part[0]:part[1]]); err != nil {
				return err
			}
		}
		content = nil
	}
	_, err = w.ask(http.MethodPut, withQuery(location, "digest="+digest), header, content, http.StatusCreated)
	return err
}

func (w *millWorker) patch(location string, offset int, chunk []byte) (string, error) {
	header := http.Header{"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("%d-%d", offset, offset+len(chunk)-1)}}
	a, err := w.ask(http.MethodPatch, location, header, chunk, http.StatusAccepted)
	return a.header.Get("Location"), err
}

// giveUp begins an upload and cancels it, or leaves it to its expiry.
func (w *millWorker) giveUp() {
	a, err := w.ask(http.MethodPost, "/v2/"+w.mill.name+"/r0/blobs/uploads/", nil, nil, http.StatusAccepted)
	if err != nil {
		return // the leader died
	}
	location := a.header.Get("Location")
	size := 30_000
	if w.chance.IntN(4) == 0 {
		size = twoParts
	}
	next, err := w.patch(location, 0, noise("given up", int64(size)))
	if err == nil && w.chance.IntN(2) == 0 {
		_, err = w.patch(next, size, noise("given up later", 20_000))
	}
	if err == nil && w.chance.IntN(2) == 0 {
		w.cancel(location)
	}
	w.did(func(c *millCount) { c.dropped++ })
}

// cancel cancels an upload. Where nobody answers it expires.
func (w *millWorker) cancel(location string) {
	_, _ = w.ask(http.MethodDelete, location, nil, nil, http.StatusNoContent, http.StatusNotFound)
}

func (w *millWorker) did(what func(*millCount)) {
	w.mill.mu.Lock()
	defer w.mill.mu.Unlock()
	what(&w.mill.count)
}

// neighbour is another repository in which an image needs a blob now; empty: none.
func (m *mill) neighbour(repo, digest string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := rand.IntN(len(m.images))
	for i := range m.images {
		image := m.images[(from+i)%len(m.images)]
		if image.there && image.repo != repo && slices.ContainsFunc(image.layers, func(l []byte) bool { return digestOf(l) == digest }) {
			return image.repo
		}
	}
	return ""
}

// remove deletes one image by its digest. It was acknowledged, so it must be there.
func (w *millWorker) remove(image *milled) {
	m := w.mill
	m.mu.Lock()
	image.there = false
	image.turn++
	m.mu.Unlock()
	for retries := 0; ; retries++ {
		a, err := w.ask(http.MethodDelete, "/v2/"+image.repo+"/manifests/"+image.digest, nil, nil, http.StatusAccepted, http.StatusNotFound)
		if err == nil && (a.status == http.StatusAccepted || retries > 0) {
			w.did(func(c *millCount) { c.deletes++ })
			return
		}
		what := fmt.Sprintf("%s deletion of %s:%s, attempt %d: %d %v", time.Now().Format("15:04:05.000"), image.repo, image.tag, retries+1, a.status, err)
		m.mu.Lock()
		m.count.retries++
		var no *refused
		if err == nil || errors.As(err, &no) && no.status < 500 || retries == clientRetries {
			m.violations = append(m.violations, what)
			m.mu.Unlock()
			return
		}
		m.repeated = append(m.repeated, what)
		m.mu.Unlock()
		time.Sleep(250 * time.Millisecond << retries)
	}
}

// puller pulls what is there. A pull may fail because its connection was cut, and is repeated, or because the image was
// deleted meanwhile.
func (m *mill) puller(ctx context.Context, id int) {
	r := at(m.registry)
	r.client.Transport.(*http.Transport).DisableKeepAlives = id%2 == 1
	defer r.client.CloseIdleConnections()
	for ctx.Err() == nil {
		if image, turn := m.pick(); image != nil {
			for attempt := 0; ; attempt++ {
				digest, err := r.image(context.Background(), image.repo, image.tag)
				if err == nil && digest != image.digest {
					err = fmt.Errorf("it is %s, pushed was %s", digest, image.digest)
				}
				if m.pulled(image, turn, attempt, err) {
					break
				}
			}
		}
		pause(ctx, m.paces.pull)
	}
}

func (m *mill) pick() (*milled, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := rand.IntN(len(m.images))
	for i := range m.images {
		// A large layer is pulled now and then only: the bytes are not the point.
		if image := m.images[(from+i)%len(m.images)]; image.there && (!image.big || rand.IntN(10) == 0) {
			return image, image.turn
		}
	}
	return nil, 0
}

// pulled judges one attempt and says whether it was the last.
func (m *mill) pulled(image *milled, turn, attempt int, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.count.pulls++
		return true
	case image.turn != turn:
		m.count.gone++
		return true
	case cut.MatchString(err.Error()) && attempt < attempts:
		m.count.cutPulls++
		return false
	}
	m.violations = append(m.violations, fmt.Sprintf("%s pull of %s:%s, attempt %d: %v", time.Now().Format("15:04:05.000"),
		image.repo, image.tag, attempt+1, err))
	return true
}

// live are the images that were acknowledged and not deleted.
func (m *mill) live() (images []*milled) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, image := range m.images {
		if image.there {
			images = append(images, image)
		}
	}
	return images
}

// pullAll pulls every image that is there from one node, byte for byte.
func (m *mill) pullAll(n *node) error {
	const parallel = 6
	images := m.live()
	errs := make([]error, parallel)
	var group sync.WaitGroup
	for p := range parallel {
		group.Go(func() {
			r := at(n.url())
			defer r.client.CloseIdleConnections()
			for i := p; i < len(images); i += parallel {
				digest, err := r.image(context.Background(), images[i].repo, images[i].tag)
				if err == nil && digest != images[i].digest {
					err = fmt.Errorf("it is %s, pushed was %s", digest, images[i].digest)
				}
				if err != nil {
					errs[p] = fmt.Errorf("%s:%s from %s: %w", images[i].repo, images[i].tag, n.name, err)
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// needed are the digests of all blobs of the images that are there: digest → how long.
func (m *mill) needed() map[string]int64 {
	blobs := map[string]int64{}
	for _, image := range m.live() {
		for _, content := range append([][]byte{image.config}, image.layers...) {
			blobs[digestOf(content)] = int64(len(content))
		}
	}
	return blobs
}

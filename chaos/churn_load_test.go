package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// traffic is what pushers and pullers did, and their failures.
type traffic struct {
	registry string
	// paces of one client: the pause between two images.
	push, pull time.Duration

	mu           sync.Mutex // guards what follows
	images       []pushed
	acks         []time.Time
	pulls        int
	longestPush  time.Duration
	retries      []int // of the pushes that needed some
	cutPulls     int
	pushFailures []string
	violations   []string
}

// pushed is an image whose push was acknowledged.
type pushed struct{ repo, tag, digest string }

// clientRetries is how often a client repeats a push before it gives up, waiting longer each time, about half a
// minute in all: a killed leader costs seconds, and on a busy machine several times as many.
const clientRetries = 7

// client is the id-th of pushers or of pullers: every second one keeps its connections, the others open one for each request,
// which the balancer deals to the next node. Go repeats a request by itself only on a connection that was kept.
func (f *traffic) client(id int) *registry {
	r := at(f.registry)
	r.client.Transport.(*http.Transport).DisableKeepAlives = id%2 == 1
	return r
}

// pusher pushes one image after the other, and repeats what failed.
func (f *traffic) pusher(ctx context.Context, id int) {
	r := f.client(id)
	defer r.client.CloseIdleConnections()
	repo := fmt.Sprintf("churn/writer%d", id)
	for i := 0; ctx.Err() == nil; i++ {
		began, retries := time.Now(), 0
		tag := fmt.Sprintf("t%d", i)
		digest, err := pushImage(context.WithoutCancel(ctx), r, repo, tag)
		for err != nil && retries < clientRetries {
			f.pushFailed(repo, tag, err)
			time.Sleep(250 * time.Millisecond << retries)
			retries++
			digest, err = pushImage(context.WithoutCancel(ctx), r, repo, tag)
		}
		f.pushDone(pushed{repo, tag, digest}, err, retries, time.Since(began))
		pause(ctx, f.push)
	}
}

func (f *traffic) pushFailed(repo, tag string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pushFailures = append(f.pushFailures, fmt.Sprintf("%s push %s:%s: %v", time.Now().Format("15:04:05.000"), repo, tag, err))
}

func (f *traffic) pushDone(image pushed, err error, retries int, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if retries > 0 {
		f.retries = append(f.retries, retries)
	}
	if err != nil {
		f.violations = append(f.violations, fmt.Sprintf("push of %s:%s failed %d times: %v", image.repo, image.tag, retries+1, err))
		return
	}
	f.images, f.acks, f.longestPush = append(f.images, image), append(f.acks, time.Now()), max(f.longestPush, took)
}

// puller pulls images whose push was acknowledged, the newest of all as often as any other. A pull may fail only because its
// own connection was cut, and must then succeed when repeated.
func (f *traffic) puller(ctx context.Context, id int) {
	r := f.client(id)
	defer r.client.CloseIdleConnections()
	for ctx.Err() == nil {
		image, any := f.pick()
		for attempt := 0; any; attempt++ {
			digest, err := r.image(context.WithoutCancel(ctx), image.repo, image.tag)
			if err == nil && digest != image.digest {
				err = fmt.Errorf("it is %s, pushed was %s", digest, image.digest)
			}
			if f.pullDone(image, err, attempt) {
				break
			}
		}
		pause(ctx, f.pull)
	}
}

func (f *traffic) pick() (pushed, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.images) == 0 {
		return pushed{}, false
	}
	if rand.IntN(2) == 0 {
		return f.images[len(f.images)-1], true
	}
	return f.images[rand.IntN(len(f.images))], true
}

// pullDone judges one attempt and says whether it was the last.
func (f *traffic) pullDone(image pushed, err error, attempt int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.pulls++
		return true
	}
	if cut.MatchString(err.Error()) && attempt < attempts {
		f.cutPulls++
		return false
	}
	f.violations = append(f.violations, fmt.Sprintf("%s pull of %s:%s, attempt %d: %v", time.Now().Format("15:04:05.000"),
		image.repo, image.tag, attempt+1, err))
	return true
}

// goesOn waits until so many more pushes have been acknowledged.
func (f *traffic) goesOn(within time.Duration, more int) error {
	f.mu.Lock()
	from := len(f.acks)
	f.mu.Unlock()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		f.mu.Lock()
		now := len(f.acks)
		f.mu.Unlock()
		if now >= from+more {
			return nil
		}
	}
	return errors.New("the pushers do not go on")
}

// gap is the longest time without an acknowledged push between two moments.
func (f *traffic) gap(from, until time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return gapsAfter(f.acks, []time.Time{from}, until)[0]
}

// pushImage pushes an image of one layer, mostly a small one, and returns the digest of its manifest.
func pushImage(ctx context.Context, r *registry, repo, tag string) (string, error) {
	size := int64(32 << 10)
	if tag[len(tag)-1] == '0' {
		size = 2 << 20
	}
	layer, config := noise(repo+tag, size), []byte(`{"image":"`+repo+":"+tag+`"}`)
	for _, content := range [][]byte{layer, config} {
		if err := r.pushBlob(ctx, repo, content); err != nil {
			return "", err
		}
	}
	body := manifest{MediaType: mediaManifest, Config: new(describe(mediaConfig, config)),
		Layers: []descriptor{describe(mediaLayer, layer)}}.encode()
	return digestOf(body), r.putManifest(ctx, repo, tag, mediaManifest, body)
}

// pullAll pulls every image from one node, and says how many could not be, and the first errors.
func (f *traffic) pullAll(ctx context.Context, n *node) (failed int, first []error) {
	const parallel = 8
	var mu sync.Mutex
	var group sync.WaitGroup
	for p := range parallel {
		group.Go(func() {
			r := at(n.url())
			defer r.client.CloseIdleConnections()
			for i := p; i < len(f.images); i += parallel {
				image := f.images[i]
				digest, err := r.image(ctx, image.repo, image.tag)
				if err == nil && digest == image.digest {
					continue
				}
				mu.Lock()
				if failed++; failed <= 5 {
					first = append(first, fmt.Errorf("%s:%s is %q on %s, pushed was %s: %w", image.repo, image.tag, digest, n.name, image.digest, err))
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return failed, first
}

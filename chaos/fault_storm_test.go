package chaos

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// stormFaults make followers need whole states. They want a small cluster.log.size.
func stormFaults() []fault {
	return []fault{{name: "snapshot-storm", weight: 1, alone: true, hold: short, inject: snapshotStorm}}
}

const (
	stormRepo = "chaos/storm"
	// stormSize and stormCount are together more than twice what the log of the arena holds, so that nobody has an older entry
	// afterwards. A manifest of more than 64 KiB is a blob and not in the log (R-C1).
	stormSize, stormCount = 60 << 10, 40
)

// snapshotStorm keeps a follower away while the log of all others leaves it behind, starts it, and kills it whenever it is
// being sent a state, a few times.
func snapshotStorm(ctx context.Context, a *arena, chance *rand.Rand) (func(context.Context) error, string, error) {
	kills := 1 + chance.IntN(3)
	n, err := a.takeFollower(chance)
	if err != nil {
		return nil, "", err
	}
	n.proc.kill()
	before := map[*node]int64{}
	for _, other := range a.d.others(n) {
		before[other] = other.logged()
	}
	digests, err := a.storm(ctx, chance.Uint64())
	if err != nil {
		return nil, "", err
	}
	for other, from := range before {
		if err := other.tells(ctx, from, "the log was compacted", 30*time.Second); err != nil {
			return nil, "", err
		}
	}
	from := n.logged()
	for i, has := 0, false; i < kills && !has; i++ {
		if has, err = a.killReceiver(ctx, n, chance.IntN(4)); err != nil {
			// What was pushed goes, too: the state must not grow with every storm.
			return nil, "", errors.Join(fmt.Errorf("%s was not sent a state, the log held what it lacked: %w: %w", n.name, err, errNobody), a.calm(ctx, digests))
		}
	}
	n.start()
	heal := func(ctx context.Context) error {
		if err := n.tells(ctx, from, "a state was installed", time.Minute); err != nil {
			return err
		}
		n.waitReady()
		return a.calm(ctx, digests)
	}
	return heal, fmt.Sprintf("%s, killed %d times meanwhile", n.name, kills), nil
}

// killReceiver starts a node that lacks entries and kills it while it is being sent a state, of which so many pieces have gone.
// A small state has fewer; then it is killed when it has the state.
func (a *arena) killReceiver(ctx context.Context, n *node, pieces int) (has bool, err error) {
	var giving []*armed
	for _, other := range a.d.others(n) {
		if other.points == nil {
			continue
		}
		held, err := other.points.arm(ctx, rule{Point: "stream.give", Action: "pause", Skip: pieces})
		if err != nil {
			return false, err
		}
		giving = append(giving, held)
	}
	from := n.logged()
	n.start()
	err = patiently(ctx, func() error {
		for _, held := range giving {
			if s, err := held.look(ctx); err == nil && s.Acted > 0 {
				return nil
			}
		}
		err := n.tells(ctx, from, "a state was installed", 50*time.Millisecond)
		has = err == nil
		return err
	})
	n.proc.kill()
	for _, held := range giving {
		_, gone := held.release(ctx)
		err = errors.Join(err, gone)
	}
	return has, err
}

// takeFollower chooses a node that does not lead.
func (a *arena) takeFollower(chance *rand.Rand) (*node, error) {
	from := chance.IntN(len(a.d.nodes))
	for i := range a.d.nodes {
		n := a.d.nodes[(from+i)%len(a.d.nodes)]
		if leads, err := n.metric("pontoon_raft_leader"); err == nil && leads == 0 && a.free(n) {
			a.claim(n)
			return n, nil
		}
	}
	return nil, errNobody
}

// storm pushes manifests that fill the log, and answers their digests.
func (a *arena) storm(ctx context.Context, salt uint64) (digests []string, err error) {
	r := at(a.d.url())
	defer r.client.CloseIdleConnections()
	config := []byte("{}")
	if err := patiently(ctx, func() error { return r.pushBlob(ctx, stormRepo, config) }); err != nil {
		return nil, err
	}
	for i := range stormCount {
		name := fmt.Sprintf("storm-%d-%d", salt, i)
		body := manifest{MediaType: mediaManifest, ArtifactType: "chaos/storm", Config: new(describe(mediaEmpty, config)),
			Annotations: map[string]string{"storm": hex.EncodeToString(noise(name, stormSize/2))}}.encode()
		if err := patiently(ctx, func() error { return r.putManifest(ctx, stormRepo, digestOf(body), mediaManifest, body) }); err != nil {
			return nil, err
		}
		digests = append(digests, digestOf(body))
	}
	return digests, nil
}

// calm deletes what the storm pushed, so that the state does not grow with every storm.
func (a *arena) calm(ctx context.Context, digests []string) error {
	r := at(a.d.url())
	defer r.client.CloseIdleConnections()
	for _, digest := range digests {
		if err := patiently(ctx, func() error {
			answer, err := r.do(ctx, http.MethodDelete, "/v2/"+stormRepo+"/manifests/"+digest, nil, nil)
			if err == nil && answer.status != http.StatusAccepted && answer.status != http.StatusNotFound { // 404: an earlier attempt did it
				err = fmt.Errorf("answered %d: %.200s", answer.status, answer.body)
			}
			return err
		}); err != nil {
			return fmt.Errorf("delete %s: %w", digest, err)
		}
	}
	return nil
}

// patiently repeats what fails while leaders come and go.
func patiently(ctx context.Context, once func() error) error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := once()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return errors.Join(err, ctx.Err())
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// logFile is what a node says.
func (n *node) logFile() string { return filepath.Join(n.logs, n.name+".log") }

// logged is how much it has said.
func (n *node) logged() int64 {
	info, err := os.Stat(n.logFile())
	if err != nil {
		return 0 // nothing yet
	}
	return info.Size()
}

// said is what it has said behind an offset.
func (n *node) said(from int64) (string, error) {
	f, err := os.Open(n.logFile())
	if err != nil {
		return "", err
	}
	defer f.Close()
	content, err := io.ReadAll(io.NewSectionReader(f, from, 64*mebibyte))
	return string(content), err
}

// tells waits until a node's log has a text behind an offset.
func (n *node) tells(ctx context.Context, from int64, text string, within time.Duration) error {
	for deadline := time.Now().Add(within); ; pause(ctx, 5*time.Millisecond) {
		said, err := n.said(from)
		if err == nil && strings.Contains(said, text) {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("%s has not said %q for %v", n.name, text, within), err, ctx.Err())
		}
	}
}

package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// TestClientsPushAndPullWhileTheLeaderDies lets real clients push and pull real images through the balancer while the
// leader is killed and restarted over and over: skopeo, crane and podman, and with -long regctl, ctr, docker, buildah, helm
// and cosign as well. Every digest is compared. A push may fail and must succeed when repeated; a pull may fail only
// because its own connection was cut, and must succeed when repeated.
func TestClientsPushAndPullWhileTheLeaderDies(t *testing.T) {
	p := newPictures(t)
	d := newDeployment(t, newBucket(t), options{})

	during, whole := 45*time.Second, 4*time.Second
	if *long {
		// A layer over 1 GiB takes longer than a few seconds: between two kills there is time to push it again.
		during, whole = 10*time.Minute, 45*time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), during+20*time.Minute)
	defer cancel()
	c := &crowd{t: t, ctx: ctx, d: d, pictures: p, until: time.Now().Add(during), tallies: map[string]*tally{}}
	c.everyDay()
	if *long {
		c.heavy()
	}
	killing, stop := context.WithCancel(ctx)
	defer stop()
	var killer sync.WaitGroup
	killed := 0
	killer.Go(func() { killed = d.killLeaders(killing, whole) })
	c.group.Wait()
	stop()
	killer.Wait()

	for _, n := range d.nodes {
		n.waitReady()
	}
	c.tallies["artifacts"].artifactsAreListed(ctx, d, c.tallies["artifacts"].rounds)
	d.agree()
	t.Logf("leader killed %d times", killed)
	for name, y := range c.tallies {
		t.Logf("%-9s %3d rounds: %d pushes and %d pulls; cut and repeated: %d pushes, %d pulls",
			name, y.rounds, y.pushes, y.pulls, y.pushFailures, y.pullFailures)
	}
	if killed < 2 {
		t.Errorf("the leader was killed only %d times: the test shows little", killed)
	}
}

// crowd are clients that work at the same time, each in rounds, one after the other, in repositories of their own, so that
// nothing is there already.
type crowd struct {
	t        testing.TB
	ctx      context.Context
	d        *deployment
	pictures pictures
	until    time.Time
	tallies  map[string]*tally
	group    sync.WaitGroup
}

// again runs rounds until the time is over, at least one.
func (c *crowd) again(name string, round func(y *tally, i int)) {
	y := &tally{t: c.t}
	c.tallies[name] = y
	c.group.Go(func() {
		for i := 0; (i == 0 || time.Now().Before(c.until)) && !c.t.Failed(); i++ {
			round(y, i)
			y.rounds++
		}
	})
}

// layouts runs a client that moves layouts. A client that can mount what another has pushed uploads only what is fresh.
func (c *crowd) layouts(name string, moves client) {
	c.again(name, func(y *tally, i int) {
		fresh := freshImage(c.t, fmt.Sprint(name, i), 4, 4<<20+123)
		y.roundTrip(c.ctx, moves, fresh, fmt.Sprintf("%s/fresh%d:v1", name, i))
		fresh.remove()
		y.roundTrip(c.ctx, moves, c.pictures.debian, fmt.Sprintf("%s/debian%d:v1", name, i))
		y.roundTrip(c.ctx, moves, c.pictures.multi, fmt.Sprintf("%s/multi%d:v1", name, i))
		if c.pictures.giant != nil && i%10 == 0 {
			y.roundTrip(c.ctx, moves, c.pictures.giant, fmt.Sprintf("%s/giant%d:v1", name, i))
		}
	})
}

// everyDay starts the clients that make check runs as well.
func (c *crowd) everyDay() {
	c.layouts("skopeo", newSkopeo(c.t, c.d.balancer))
	c.layouts("crane", newCrane(c.t, c.d.balancer))
	m := newPodman(c.t, c.d.balancer)
	c.again("podman", func(y *tally, i int) {
		m.roundTrip(c.ctx, y, c.pictures.debian, fmt.Sprintf("podman/debian%d:v1", i))
	})
	c.again("artifacts", func(y *tally, i int) {
		y.artifact(c.ctx, c.d, i)
		pause(c.ctx, 200*time.Millisecond)
	})
}

// heavy starts the clients that take long to install.
func (c *crowd) heavy() {
	c.layouts("regctl", newRegctl(c.t, c.d.balancer))
	s := newDaemons(c.t)
	c.layouts("ctr", newCtr(c.t, s, c.d.balancer))
	k := newDocker(c.t, s, c.d.balancer)
	c.again("docker", func(y *tally, i int) {
		image := freshImage(c.t, fmt.Sprint("docker", i), 6, 4<<20)
		k.roundTrip(c.ctx, y, image, fmt.Sprintf("docker/fresh%d:v1", i))
		image.remove()
		k.roundTrip(c.ctx, y, c.pictures.debian, fmt.Sprintf("docker/debian%d:v1", i)) // from the second on it mounts
	})
	b := newBuildah(c.t, c.d.balancer)
	base := newSkopeo(c.t, c.d.balancer)
	c.again("buildah", func(y *tally, i int) {
		if i == 0 {
			y.push("buildah/base:v1", func() error { return base.push(c.ctx, c.pictures.debian, "buildah/base:v1") })
		}
		b.roundTrip(c.ctx, y, "buildah/base:v1", fmt.Sprintf("buildah/built%d:v1", i))
	})
	h := newHelm(c.t, c.d.balancer)
	c.again("helm", func(y *tally, i int) {
		h.roundTrip(c.ctx, y, i)
		pause(c.ctx, 500*time.Millisecond)
	})
	signer := newCosign(c.t, c.d.balancer)
	c.again("cosign", func(y *tally, i int) {
		signer.roundTrip(c.ctx, y, i)
		if i == 0 {
			signer.refusesStrangers(c.ctx, y, i)
		}
		pause(c.ctx, 500*time.Millisecond)
	})
}

// killLeaders kills the leader, brings it back, lets the cluster be whole for a time, and begins again until the context
// ends. It leaves all nodes running and returns how many it killed.
func (d *deployment) killLeaders(ctx context.Context, whole time.Duration) (killed int) {
	for {
		pause(ctx, whole)
		if ctx.Err() != nil {
			return killed
		}
		victim := d.leader(30 * time.Second)
		victim.proc.kill()
		killed++
		pause(ctx, 500*time.Millisecond)
		victim.start()
		victim.waitReady()
	}
}

package chaos

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

// TestClientsGoOnWhereTheyWereCut lets clients push and pull layers through a proxy that cuts the first connections that carry
// much. Those that know how to go on with a layer must do so, by asking for the rest of its bytes; all must end with every
// byte.
func TestClientsGoOnWhereTheyWereCut(t *testing.T) {
	d := newDeployment(t, newBucket(t), options{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()

	each := func(name string, resumes bool, roundTrip func(y *tally, registry string, image *layout)) {
		t.Run(name, func(t *testing.T) {
			cuts := proxy.Flow{CutAfter: 2 << 20, Cuts: 2}
			line := newLine(t, d.balancer, proxy.Mode{Up: cuts, Down: cuts})
			partial := d.answered(t, "206")
			y := &tally{t: t}
			roundTrip(y, line.Addr(), freshImage(t, name, 3, 12<<20)) // of its own: what another pushed would be mounted
			partial = d.answered(t, "206") - partial
			up, down := line.Counts().CutUp, line.Counts().CutDown
			t.Logf("cut %d connections up and %d down; the client failed %d pushes and %d pulls, which were repeated; %.0f layers asked for in part",
				up, down, y.pushFailures, y.pullFailures, partial)
			if up == 0 || down == 0 {
				t.Error("nothing was cut one way: the test shows nothing")
			}
			if resumes && partial == 0 {
				t.Errorf("%s never asked for the rest of a layer", name)
			}
		})
	}
	layouts := func(name string, resumes bool, open func(registry string) client) {
		each(name, resumes, func(y *tally, registry string, image *layout) {
			y.roundTrip(ctx, open(registry), image, fmt.Sprintf("resume/%s:v1", name))
		})
	}
	layouts("skopeo", false, func(registry string) client { return newSkopeo(t, registry) })
	layouts("crane", false, func(registry string) client { return newCrane(t, registry) })
	if *long {
		s := newDaemons(t)
		layouts("regctl", true, func(registry string) client { return newRegctl(t, registry) })
		layouts("ctr", true, func(registry string) client { return newCtr(t, s, registry) })
		each("docker", true, func(y *tally, registry string, image *layout) {
			newDocker(t, s, registry).roundTrip(ctx, y, image, "resume/docker:v1")
		})
	}
	d.agree()
}

// answered sums the answers of one status that the nodes have given.
func (d *deployment) answered(t testing.TB, code string) (sum float64) {
	t.Helper()
	for _, n := range d.nodes {
		count, err := n.series("registry_http_requests_total", `code="`+code+`"`)
		if err != nil {
			t.Fatal(err)
		}
		sum += count
	}
	return sum
}

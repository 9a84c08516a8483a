package cluster

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

func TestTheClockOfAnIdleClusterGoesOn(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, nil)
	cfg.Listen, cfg.GossipListen, cfg.Secrets = "", "", nil
	cfg.Settings = proto.CloneOf(cfg.Settings)
	cfg.Settings.Grace = int64(time.Second)
	n := start(t, cfg)
	settle(t, []*running{n})
	clock := func() time.Duration {
		v := n.state.View()
		defer v.Close()
		return time.Duration(v.ClusterTime())
	}
	at, began := time.Now(), clock()
	eventually(t, "the clock of the view moves without a write", func() error {
		if passed := clock() - began; passed < 2*time.Second {
			return fmt.Errorf("by %v in %v", passed, time.Since(at))
		}
		return nil
	})
	if passed, real := clock()-began, time.Since(at); passed > real+time.Second {
		t.Errorf("the clock moved by %v in %v", passed, real)
	}
}

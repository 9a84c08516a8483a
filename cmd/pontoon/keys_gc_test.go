package main

import (
	"strings"
	"testing"
	"time"
)

func TestFloorsOfCollectionAreLoweredOnlyByNameAndLoudly(t *testing.T) {
	c := mustParse(t, "")
	if g := c.GC; !g.Enabled || g.Untagged || g.UnsafeShort || g.Schedule != "@every 6h" || g.Grace != time.Hour || g.Delay != 24*time.Hour ||
		g.Orphans != 24*time.Hour || g.Uploads != 24*time.Hour || g.DeletesPerSecond != 500 {
		t.Errorf("defaults are %+v", g)
	}
	if s := c.clusterConfig(nil, &store{}, nil, nil).Settings; s.GetUploadLifetime() != int64(24*time.Hour) {
		t.Errorf("uploads live %v", time.Duration(s.GetUploadLifetime()))
	}
	const short = "version: 0.1\ngc: {grace: 59s, delay: 79m, uploads: 59m, orphans: 23h"
	got := problems(t, short+"}\n")
	for _, want := range []string{
		"p.yml:2: gc.grace: got 59s, must be at least 1m", "p.yml:2: gc.delay: got 1h19m, must be at least 1h20m",
		"p.yml:2: gc.uploads: got 59m, must be at least 1h", "p.yml:2: gc.orphans: got 23h, must be at least 24h",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nexpected\n%s", got, want)
		}
	}
	if got := problems(t, "version: 0.1\ngc: {grace: 1m, delay: 80m, uploads: 1h, orphans: 24h}\n"); got != "" {
		t.Errorf("at the floors: %s", got)
	}
	notices := strings.Join(mustParse(t, short+", unsafeshort: true}\n").Notices, "\n")
	if !strings.Contains(notices, "p.yml:2: gc.unsafeshort: DANGER: grace 59s") {
		t.Errorf("said: %s", notices)
	}
	if n := mustParse(t, "").Notices; len(n) != 0 {
		t.Errorf("said without a reason: %q", n)
	}
}

func TestTheScheduleOfCollectionIsChecked(t *testing.T) {
	for _, good := range []string{"never", "@every 90m", "@daily", "30 3 * * *", "0 */6 * * 1-5"} {
		if got := problems(t, "version: 0.1\ngc: {schedule: '"+good+"'}\n"); got != "" {
			t.Errorf("%s: %s", good, got)
		}
	}
	for _, bad := range []string{"6h", "* * * *", "61 * * * *", "0 3 31 2 *", "@often", ""} {
		if got := problems(t, "version: 0.1\ngc: {schedule: '"+bad+"'}\n"); !strings.Contains(got, "p.yml:2: gc.schedule: got") {
			t.Errorf("%q: got %q", bad, got)
		}
	}
	if got := problems(t, "version: 0.1\ngc: {interval: 6h}\n"); !strings.Contains(got, "gc.interval: not supported: write gc.schedule") {
		t.Errorf("an old key: %s", got)
	}
}

package main

import (
	"time"

	"github.com/robfig/cron/v3"
)

// The floors that only gc.unsafeshort lowers. graceFloor leaves a pusher the time between two of its requests; delayFloor
// is the lifetime of a presigned URL (api/oci) and an hour (G6); orphanFloor outlives clocks that are wrong (G7).
const (
	graceFloor   = time.Minute
	delayFloor   = 80 * time.Minute
	orphanFloor  = 24 * time.Hour
	uploadsFloor = time.Hour
	// shortest is what gc.unsafeshort lowers them to.
	shortest = time.Second
)

func gcKeys(c *Config) []key {
	g := &c.GC
	return []key{
		{path: "gc.enabled", into: flag{&g.Enabled}, def: "true", doc: "whether this node collects garbage while it leads"},
		{path: "gc.schedule", into: text{&g.Schedule, schedule}, def: "@every 6h",
			doc: "when: five cron fields, @every and a duration, or never (only on request)"},
		{path: "gc.grace", into: span{&g.Grace, shortest, 30 * day}, def: "1h",
			doc: "how long what was pushed stays without a manifest that needs it; at least 1m"},
		{path: "gc.delay", into: span{&g.Delay, shortest, 90 * day}, def: "24h",
			doc: "how long storage keeps what nothing needs any more; at least 1h20m. Backups keep it longer"},
		{path: "gc.uploads", into: span{&g.Uploads, shortest, 30 * day}, def: "24h",
			doc: "how long an upload lives after its last step; at least 1h"},
		{path: "gc.orphans", into: span{&g.Orphans, shortest, 365 * day}, def: "24h",
			doc: "how old an object must be that no upload is known for; at least 24h"},
		{path: "gc.untagged", into: flag{&g.Untagged}, def: "false",
			doc: "danger: manifests go that no tag, index or living subject keeps; who pulls by digest alone loses them"},
		{path: "gc.deletespersecond", into: number{&g.DeletesPerSecond, 1, 100_000}, def: "500", doc: "layers condemned, and keys deleted from the store, at most"},
		{path: "gc.unsafeshort", into: flag{&g.UnsafeShort}, def: "false",
			doc: "danger, for tests: grace, delay, uploads and orphans may be as short as 1s"},
	}
}

// schedule checks gc.schedule; cluster/gc reads it.
func schedule(s string) string {
	if s == "never" {
		return ""
	}
	if parsed, err := cron.ParseStandard(s); err != nil || parsed.Next(time.Now()).IsZero() {
		return "five cron fields such as 30 3 * * *, @every and a duration such as @every 6h, or never"
	}
	return ""
}

// checkGC holds the spans to their floors, which the table does not know, and says it when they are gone.
func (c *Config) checkGC(k *keyring) {
	g := c.GC
	if g.UnsafeShort {
		k.notice(k.source["gc.unsafeshort"], "gc.unsafeshort", "DANGER: grace %v, delay %v, uploads %v and orphans %v have no floors: "+
			"layers that clients still push or pull may be deleted. This is for tests, never for images that anybody needs",
			short(g.Grace), short(g.Delay), short(g.Uploads), short(g.Orphans))
		return
	}
	for _, f := range []struct {
		path      string
		got, want time.Duration
	}{
		{"gc.grace", g.Grace, graceFloor}, {"gc.delay", g.Delay, delayFloor},
		{"gc.uploads", g.Uploads, uploadsFloor}, {"gc.orphans", g.Orphans, orphanFloor},
	} {
		if f.got < f.want {
			k.problem(f.path, "got %s, must be at least %s, unless gc.unsafeshort says that it is a test", short(f.got), short(f.want))
		}
	}
}

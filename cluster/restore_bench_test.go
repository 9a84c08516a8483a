package cluster

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/pontoon-registry/pontoon/meta"
)

// BenchmarkRestore is from the rows of a snapshot to a node that answers: import, new cluster, start, first linearizable
// read. (Fetching and unpacking the snapshot is cluster/backup's, the first pull chaos'.)
func BenchmarkRestore(b *testing.B) {
	n := start(b, testConfig(b, nil))
	settle(b, []*running{n})
	fillManifests(b, n, manifests(b))
	path := filepath.Join(b.TempDir(), "rows")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	v := n.state.View()
	if err := v.Export(f); err != nil {
		b.Fatal(err)
	}
	v.Close()
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	n.halt(b)
	for b.Loop() {
		begun := time.Now()
		cfg := testConfig(b, nil)
		r, err := OpenRestoration(cfg.DataDir)
		if err != nil {
			b.Fatal(err)
		}
		rows, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		if err := meta.Import(r.Store(), bufio.NewReaderSize(rows, 1<<20)); err != nil {
			b.Fatal(err)
		}
		if err := rows.Close(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begun).Seconds(), "import-s")
		founded := time.Now()
		if err := r.Found(time.Now()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(founded).Seconds(), "rewrite-s")
		if _, err := r.Finish(); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.Sys)/(1<<20), "MiB-sys")
		again := start(b, cfg)
		eventually(b, "the restored node answers", func() error { return again.Ready(b.Context()) })
		b.ReportMetric(time.Since(begun).Seconds(), "ready-s")
		again.halt(b)
	}
}

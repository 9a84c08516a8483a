package s3

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
)

func TestBucketPassesTheSuite(t *testing.T) {
	suite(t, Config{Memory: 32 << 20}, 8<<20)
}

// suite runs blobstest against one server; every fixture has a root directory of its own.
func suite(t *testing.T, c Config, part int64) {
	t.Helper()
	dir := t.TempDir()
	server, err := blobstest.NewS3(t.Context(), dir, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	var fixtures atomic.Int32
	c = against(server.S3Server, c)
	blobstest.Run(t, func(t *testing.T) blobstest.Fixture {
		c := c
		c.RootDirectory = fmt.Sprintf("/registry/%d/", fixtures.Add(1))
		a, b := open(t, c), open(t, c)
		return blobstest.Fixture{
			Nodes:     []blobs.Store{blobstest.Shield(a, a.Probe), b}, // as the product has it, and bare
			Objects:   []blobs.Objects{a, b},
			Archives:  []blobs.Archive{blobs.RetryArchive(a.Archive(), new(blobstest.Watch)), b.Archive()},
			Part:      part,
			Multipart: true,
			Heap:      2*c.Memory + 16<<20, // the collector lets the heap double
			Stream:    1 << 30,
			Damage: func(t *testing.T, key string) {
				damage(t, filepath.Join(dir, server.Bucket, c.RootDirectory, key))
			},
		}
	})
}

// against answers c for a running server.
func against(server blobstest.S3Server, c Config) Config {
	c.RegionEndpoint, c.Bucket = server.Endpoint, server.Bucket
	c.AccessKey, c.SecretKey = server.AccessKey, server.SecretKey
	c.ForcePathStyle = true
	return c
}

func open(t *testing.T, c Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return s
}

// damage flips a bit in the middle of a file.
func damage(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

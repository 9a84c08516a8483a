package mem

import (
	"context"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
)

func TestMemPassesTheSuite(t *testing.T) {
	blobstest.Run(t, func(*testing.T) blobstest.Fixture {
		s := New(1 << 16)
		return blobstest.Fixture{
			Nodes:     []blobs.Store{s, blobstest.Shield(s, func(context.Context) error { return nil })},
			Objects:   []blobs.Objects{s},
			Archives:  []blobs.Archive{blobs.RetryArchive(s.Archive(), new(blobstest.Watch)), s.Archive()},
			Part:      1 << 16,
			Multipart: true,
			Damage: func(t *testing.T, key string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				o, ok := s.objects[key]
				if !ok {
					t.Fatalf("damage %s: it is not there", key)
				}
				o.data[len(o.data)/2] ^= 1
			},
		}
	})
}

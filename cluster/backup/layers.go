package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

const (
	// layerPage is how many keys of the ledger are read at once.
	layerPage = 1000
	// layerReaders is how many layers are read at once.
	layerReaders = 4
	// layerHolders is how many repositories are named that need a layer.
	layerHolders = 10
)

// Layer is a blob that the state needs.
type Layer struct {
	Digest meta.Digest
	*metav1.Blob
	// Repositories need it; at most ten are named, and only of a layer that is not as it should be.
	Repositories []string
	// Wrong says what is wrong with its bytes; nil: nothing.
	Wrong error
}

// What can be wrong with a layer.
var (
	errLayerMissing = errors.New("the store does not have it")
	errLayerLost    = errors.New("it was lost before already")
	errLayerAltered = errors.New("its bytes have another digest")
)

// Layers compares every layer that the state needs with what the store lists, by a merge of two ordered streams: memory
// does not grow with either. It reads no layer. each gets all of them, those that are right too, in the order of their keys; its error ends the walk.
func Layers(ctx context.Context, v *meta.View, store blobs.Store, name string, each func(Layer) error) error {
	c := comparison{ctx: ctx, v: v, store: store, each: each}
	defer c.end()
	for after := ""; ; {
		rows, more, err := v.Objects(name, "", after, layerPage)
		if err != nil {
			return fmt.Errorf("compare layers: %w", err)
		}
		for _, row := range rows {
			if row.GetLive() == nil {
				continue
			}
			if err := c.compare(row); err != nil {
				return fmt.Errorf("compare layers: %w", err)
			}
		}
		if !more {
			return nil
		}
		after = rows[len(rows)-1].Key
	}
}

type comparison struct {
	ctx   context.Context // of the one call
	v     *meta.View
	store blobs.Store
	each  func(Layer) error
	// epoch is whose keys are being listed, by next until stop; at is the listed object at or above the last key.
	epoch string
	next  func() (blobs.Object, error, bool)
	stop  func()
	at    blobs.Object
	some  bool
}

func (c *comparison) end() {
	if c.stop != nil {
		c.stop()
	}
}

func (c *comparison) compare(row meta.ObjectItem) error {
	d := meta.Digest(row.GetLive().GetDigest())
	blob, err := c.v.StoredBlob(d)
	if err != nil {
		return err
	}
	if blob == nil {
		return fmt.Errorf("the ledger has key %s live for %s, and no such blob", row.Key, d)
	}
	listed, found, err := c.seek(row.Key)
	if err != nil {
		return err
	}
	l := Layer{Digest: d, Blob: blob}
	switch {
	case blob.GetLost():
		l.Wrong = errLayerLost
	case !found:
		l.Wrong = errLayerMissing
	case listed.Size != blob.GetSize():
		l.Wrong = fmt.Errorf("the store has %d bytes of it, it has %d", listed.Size, blob.GetSize())
	}
	if l.Wrong != nil {
		if l.Repositories, err = c.v.NeededBy(d, layerHolders); err != nil || len(l.Repositories) == 0 {
			return err // what nothing needs may be gone
		}
	}
	return c.each(l)
}

// seek moves the list on to the key.
func (c *comparison) seek(key string) (blobs.Object, bool, error) {
	epoch, _, _ := strings.Cut(key, "/")
	if c.next == nil || c.epoch != epoch {
		c.end()
		c.epoch, c.some = epoch, false
		c.next, c.stop = iter.Pull2(c.store.List(c.ctx, epoch+"/", ""))
	} else if c.some && c.at.Key >= key {
		return c.at, c.at.Key == key, nil
	}
	for {
		o, err, ok := c.next()
		if err != nil {
			return o, false, err
		}
		if c.at, c.some = o, ok; !ok {
			c.next = func() (blobs.Object, error, bool) { return blobs.Object{}, nil, false }
			return o, false, nil
		}
		if o.Key >= key {
			return o, o.Key == key, nil
		}
	}
}

// DeepLayers is Layers, and reads each layer that is listed as it should be, a few at once. each is called by one
// goroutine at a time, in no order; read hears of bytes from several.
func DeepLayers(ctx context.Context, s *meta.State, store blobs.Store, name string, each func(Layer) error, read func(n int64)) error {
	walk, ask := s.View(), s.View()
	defer walk.Close()
	defer ask.Close()
	var mu sync.Mutex // guards ask, and orders the calls of each
	tell := func(l Layer) (err error) {
		mu.Lock()
		defer mu.Unlock()
		if l.Wrong != nil && len(l.Repositories) == 0 {
			if l.Repositories, err = ask.NeededBy(l.Digest, layerHolders); err != nil || len(l.Repositories) == 0 {
				return err
			}
		}
		return each(l)
	}
	readers, ctx := errgroup.WithContext(ctx)
	readers.SetLimit(layerReaders)
	err := Layers(ctx, walk, store, name, func(l Layer) error {
		if l.Wrong != nil {
			return tell(l)
		}
		readers.Go(func() (err error) {
			if l.Wrong, err = readLayer(ctx, store, l, read); err != nil {
				return fmt.Errorf("read layer %s: %w", l.Digest, err)
			}
			return tell(l)
		})
		return nil
	})
	if first := readers.Wait(); first != nil {
		return first
	}
	return err
}

// readLayer reads a layer whole and answers what is wrong with its bytes, or why that cannot be said.
func readLayer(ctx context.Context, store blobs.Store, l Layer, read func(n int64)) (wrong, err error) {
	r, err := store.Open(ctx, l.GetKey(), 0, l.GetSize())
	if errors.Is(err, blobs.ErrNotFound) {
		return errLayerMissing, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // only read
	sum := digest.Digest(l.Digest.String()).Verifier()
	_, err = io.Copy(sum, readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		read(int64(n))
		return n, err
	}))
	switch {
	case errors.Is(err, blobs.ErrCorrupt), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, blobs.ErrNotFound):
		return err, nil
	case err == nil && !sum.Verified():
		return errLayerAltered, nil
	}
	return nil, err
}

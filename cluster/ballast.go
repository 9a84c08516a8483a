package cluster

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// makeBallast makes a file whose blocks are taken, or none.
func makeBallast(path string, size int64) error {
	if size == 0 {
		return os.Remove(path)
	}
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err = allocate(f, size); errors.Is(err, errors.ErrUnsupported) {
		// Noise, since the file system may compress, or leave zeros out. Not after another error: where there is less room
		// than it looks, as by a quota, writing would take the last of it from Raft's log, again and again.
		_, err = io.CopyN(f, rand.Reader, size)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

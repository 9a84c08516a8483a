package backup

import (
	"errors"
	"fmt"
)

// What can be wrong with a file of a backup; a FileError says which.
var (
	// ErrMissing: the manifest or the log names a file that is not there.
	ErrMissing = errors.New("is missing")
	// ErrTruncated: the file ends before its end.
	ErrTruncated = errors.New("is cut short")
	// ErrAltered: the file is not what was written.
	ErrAltered = errors.New("was altered: it is not what was written")
	// ErrNewerFormat: a newer release wrote it.
	ErrNewerFormat = errors.New("has a format that this release does not read: use the release that wrote it, or a newer one")
	// ErrOtherCluster: it belongs to another cluster, or to another life of this one, than its place says.
	ErrOtherCluster = errors.New("belongs to another cluster")
	// ErrGap: entries of the log are in no segment.
	ErrGap = errors.New("the log has a gap")
	// ErrNoSnapshot: the archive has no complete snapshot that fits what was asked for.
	ErrNoSnapshot = errors.New("no such snapshot")
	// ErrUnreached: what is archived ends before the moment that was asked for.
	ErrUnreached = errors.New("is not reached")
)

// FileError is what is wrong with one file of a backup.
type FileError struct {
	// File is its name in the archive, or within the tar.
	File string
	Err  error
}

func (e *FileError) Error() string { return e.File + " " + e.Err.Error() }

func (e *FileError) Unwrap() error { return e.Err }

func fileError(file string, kind error, format string, args ...any) error {
	return &FileError{File: file, Err: fmt.Errorf("%w: "+format, append([]any{kind}, args...)...)}
}

package cluster

import (
	"errors"
	"os"
	"syscall"
)

// allocate takes blocks for the file without writing them. Signals interrupt it, the runtime's own among them.
func allocate(f *os.File, size int64) (err error) {
	for range 100 {
		if err = syscall.Fallocate(int(f.Fd()), 0, 0, size); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
	return err
}

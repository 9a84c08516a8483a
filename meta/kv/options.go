package kv

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// Options of a store. The zero value is right for tests.
type Options struct {
	// Cache is the size of the block cache in bytes; 0 means 16 MiB. Pebble
	// allocates it outside the Go heap where it can.
	Cache int64
	// Memtable is the size of the write buffer in bytes; 0 means 16 MiB. Up to
	// two of them are in memory.
	Memtable uint64
	// Logger receives Pebble's messages; nil discards them.
	Logger Logger
	// Still starts no compactions: for a store that is opened to change a row and closed again.
	Still bool
	// Memory keeps all files in memory; nil means the disk.
	Memory *Memory
	// Watch is told when a write begins, and by its answer when it ends, so that
	// somebody sees a disk that hangs. It is called for every write. Nil: nobody.
	Watch func(what string) (done func())
	// Room is asked before every commit of a batch, and by a Filling now and then; its error is theirs, and nothing was written. For who must not
	// meet the end of the disk within Pebble, which does not survive it. Nil: nobody.
	Room func() error
}

// Logger receives Pebble's messages. Fatalf is called when the store cannot go
// on (a failed write of its log): it must not return.
type Logger interface {
	Infof(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// silent is the default Logger. A fatal message becomes a panic: in a caller's
// goroutine that is an *Error, in Pebble's own it ends the process, as it must (M2).
type silent struct{}

func (silent) Infof(string, ...any)              {}
func (silent) Errorf(string, ...any)             {}
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

const (
	defaultCache    = 16 << 20
	defaultMemtable = 16 << 20
	// bloomBits per key give about 1 % false positives; most gets of a push are for what is not there.
	bloomBits = 10
)

// pebble answers Pebble's options. The format version is named, not "newest":
// it is part of what a rollback must read (M7).
func (o Options) pebble() *pebble.Options {
	p := &pebble.Options{
		FormatMajorVersion: pebble.FormatTableFormatV6,
		CacheSize:          defaultCache,
		MemTableSize:       defaultMemtable,
		Logger:             silent{},
	}
	if o.Cache > 0 {
		p.CacheSize = o.Cache
	}
	if o.Memtable > 0 {
		p.MemTableSize = o.Memtable
	}
	if o.Logger != nil {
		p.Logger = o.Logger
	}
	p.DisableAutomaticCompactions = o.Still
	if o.Memory != nil {
		p.FS = o.Memory
	}
	for i := range p.Levels {
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
	}
	return p
}

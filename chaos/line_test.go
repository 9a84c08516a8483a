package chaos

import (
	"testing"

	"github.com/pontoon-registry/pontoon/chaos/proxy"
)

// newLine opens a line to an address in a mode; it ends with the test.
func newLine(t testing.TB, target string, mode proxy.Mode) *proxy.Line {
	t.Helper()
	l, err := proxy.OpenLine(freeAddr(t), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	l.Set(mode)
	return l
}

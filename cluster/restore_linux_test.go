package cluster

import (
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestARestoreOnAFullDiskSaysSo, starts nothing, gives its space back and is done again with more of it.
func TestARestoreOnAFullDiskSaysSo(t *testing.T) {
	n := start(t, testConfig(t, nil))
	settle(t, []*running{n})
	want := tagged(t, n, "kept")
	rng := rand.NewChaCha8([32]byte{1})
	for range 300 { // 18 MiB that do not compress
		body := make([]byte, 60<<10)
		_, _ = rng.Read(body)
		sum := sha256.Sum256(body)
		if _, err := n.Propose(t.Context(), simCommand(&metav1.Command{Kind: &metav1.Command_PutManifest{PutManifest: &metav1.PutManifest{
			Repository: "big", Digest: append([]byte{meta.SHA256}, sum[:]...), MediaType: meta.MediaTypeImage, Body: body, Size: int64(len(body)),
		}}})); err != nil {
			t.Fatal(err)
		}
	}
	file := saved(t, n)
	n.halt(t)

	cfg := testConfig(t, nil)
	err := syscall.Mount("tmpfs", cfg.DataDir, "tmpfs", 0, "size=80m,mode=0700")
	if errors.Is(err, syscall.EPERM) && os.Geteuid() == 0 {
		t.Log("this container keeps even root from mounting: nothing was tested")
		return
	}
	if err != nil {
		t.Fatalf("mount a small file system: %v: run this test as root, as CI does, or within `unshare -Urm`", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(cfg.DataDir, 0); err != nil {
			t.Error(err)
		}
	})
	if _, err := restoredInto(cfg.DataDir, file, noStep); err == nil || !strings.Contains(err.Error(), "disk full: "+cfg.DataDir) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	var s syscall.Statfs_t
	if err := syscall.Statfs(cfg.DataDir, &s); err != nil || int64(s.Bfree)*s.Bsize < 79<<20 {
		t.Errorf("%d bytes are free after it, %v", int64(s.Bfree)*s.Bsize, err)
	}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "a restore began in") {
		t.Errorf("it starts on half a restore: %v", err)
	}
	if err := syscall.Mount("tmpfs", cfg.DataDir, "tmpfs", syscall.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	if _, err := restoredInto(cfg.DataDir, file, noStep); err != nil {
		t.Fatal(err)
	}
	again := start(t, cfg)
	settle(t, []*running{again})
	if got := theTags(t, again); got["kept"] != want {
		t.Errorf("tags %v", got)
	}
	again.halt(t)
}

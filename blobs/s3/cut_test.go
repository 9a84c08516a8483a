package s3

import (
	"math/rand/v2"
	"testing"

	"github.com/pontoon-registry/pontoon/blobs"
)

func TestPartsGrowWithTheOffset(t *testing.T) {
	for _, c := range []struct{ offset, want int64 }{
		{0, 8 * mib},
		{1, 8 * mib},
		{8*mib - 1, 8 * mib},
		{8 * mib, 16 * mib},
		{8000*mib - 1, 8000 * mib},
		{8000 * mib, 8016 * mib},
		{24000 * mib, 24032 * mib},
		{56000 * mib, 56064 * mib},
		{1 << 40, 56000*mib + ((1<<40-56000*mib)/(64*mib)+1)*64*mib},
	} {
		if got := (cutter{}).boundary(c.offset); got != c.want {
			t.Errorf("boundary(%d) = %d, want %d", c.offset, got, c.want)
		}
	}
}

func TestTenThousandPartsHoldTheLargestLayer(t *testing.T) {
	for equal, want := range map[bool]int64{false: 504_000 * mib, true: 160_000 * mib} {
		offset := int64(0)
		for range maxParts {
			offset = (cutter{equal: equal}).end(offset)
		}
		if offset != want {
			t.Errorf("equal %v: %d parts hold %d bytes, want %d", equal, maxParts, offset, want)
		}
		if n := (cutter{equal: equal}).reserve(blobs.Progress{}, want+1); n != maxParts {
			t.Errorf("equal %v: reserve of one byte more than fits = %d, want %d and the tail", equal, n, maxParts)
		}
	}
}

func TestPartsAreNeverBelowTheBoundOfS3(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		start := r.Int64N(1 << 39)
		end := (cutter{}).end(start)
		if end-start < minPart {
			t.Fatalf("a part from %d ends at %d", start, end)
		}
		if (cutter{}).boundary(end-1) != end {
			t.Fatalf("a part from %d ends at %d, which is no boundary", start, end)
		}
		if end-start > 96*mib {
			t.Fatalf("a part from %d has %d bytes", start, end-start)
		}
	}
}

// TestReserveIsWhatAnAttemptUses replays writer's rules on lengths alone.
func TestReserveIsWhatAnAttemptUses(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, equal := range []bool{false, true} {
		c := cutter{equal: equal}
		for range 2000 {
			var p blobs.Progress
			next := int32(1)
			for range 1 + r.IntN(20) {
				length := r.Int64N(60 * mib)
				reserved := c.reserve(p, length)
				after, used := replay(c, p, length, next)
				if used != reserved {
					t.Fatalf("equal %v: %d bytes after %d (%d in parts) use %d numbers, reserved %d",
						equal, length, p.Size, partsSize(p.Parts), used, reserved)
				}
				if err := after.Validate(); err != nil {
					t.Fatal(err)
				}
				p, next = after, next+used
			}
		}
	}
}

// replay answers the progress after an attempt and how many numbers it used.
func replay(c cutter, p blobs.Progress, length int64, next int32) (blobs.Progress, int32) {
	if length == 0 {
		return p, 0
	}
	start, end, used := partsSize(p.Parts), p.Size+length, int32(0)
	out := blobs.Progress{Size: end, MultipartID: p.MultipartID, MultipartKey: p.MultipartKey, Parts: p.Parts}
	part := func(size int64) {
		out.Parts = append(out.Parts, blobs.Part{Number: next + used, Size: size})
		out.MultipartID, out.MultipartKey = "id", "a/b/c"
		start += size
		used++
	}
	for start < end {
		if size := c.end(start) - start; start+size < end {
			part(size)
			continue
		}
		if out.MultipartID != "" && c.isPart(start, end-start) {
			part(end - start)
			continue
		}
		out.Pieces = []blobs.Piece{{Key: "a/b/c", Size: end - start}}
		break
	}
	return out, used
}

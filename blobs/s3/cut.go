package s3

import "github.com/pontoon-registry/pontoon/blobs"

const (
	mib = 1 << 20
	// minPart is S3's bound on every part but the last, in bytes; maxParts on their numbers.
	minPart  = 5 * mib
	maxParts = 10_000
	// minMemory lets one upload fill a first part.
	minMemory = 8 * mib
	// equalPart is the size of all parts in equal-part mode: 10,000 of them hold 156 GiB.
	equalPart = 16 * mib
)

// cutter says where parts end: a pure function of offsets, equal on every node.
//
// Parts end at the points of a fixed grid: 8 MiB apart up to 8,000 MiB, then
// 16 MiB for 1,000 points, 32 MiB for 1,000 points, 64 MiB from there. 10,000
// parts hold 504,000 MiB (492 GiB): that is the largest layer. Only Close may
// end a part between two points; the next attempt's first part then ends at the
// first point that leaves it long enough.
//
// A part cut by Close has at least half the distance of the grid there (5 MiB at
// the least), so that an upload in chunks of any size still reaches half of the largest layer. Every chunk
// that leaves a tail uses up a part number too (its finisher's), so there are fewer than 10,000 such chunks.
type cutter struct {
	equal bool
}

// step answers the distance of the grid's points at offset, and where the stretch with that distance begins.
func (c cutter) step(offset int64) (distance, begin int64) {
	if c.equal {
		return equalPart, 0
	}
	distance = 8 * mib
	for distance < 64*mib && offset >= begin+1000*distance {
		begin += 1000 * distance
		distance *= 2
	}
	return distance, begin
}

// boundary answers the first point above offset.
func (c cutter) boundary(offset int64) int64 {
	distance, begin := c.step(offset)
	return begin + ((offset-begin)/distance+1)*distance
}

// shortest answers the least size of a part that begins at start and is not the last.
func (c cutter) shortest(start int64) int64 {
	distance, _ := c.step(start)
	if c.equal {
		return distance
	}
	return max(minPart, distance/2)
}

// end answers where a part that begins at start ends if the bytes do not end before.
func (c cutter) end(start int64) int64 {
	least := start + c.shortest(start)
	return c.boundary(least - 1)
}

// isPart answers whether the n bytes from start that are left at Close become a part of an open multipart upload.
func (c cutter) isPart(start, n int64) bool { return n >= c.shortest(start) }

// reserve answers how many numbers an attempt uses that writes length bytes after p.
func (c cutter) reserve(p blobs.Progress, length int64) int32 {
	if length < 0 {
		return blobs.MaxUnsaved
	}
	start, end := partsSize(p.Parts), p.Size+length
	multipart := p.MultipartID != ""
	n := int32(0)
	for ; c.end(start) < end && n <= maxParts; n++ {
		start, multipart = c.end(start), true
	}
	if multipart && length > 0 && c.isPart(start, end-start) {
		n++
	}
	return n
}

func partsSize(parts []blobs.Part) (size int64) {
	for _, p := range parts {
		size += p.Size
	}
	return size
}

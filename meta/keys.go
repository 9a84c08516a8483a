package meta

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Key grammar. A key is one range byte and its parts. A name is its bytes and
// 0x00 (no name holds one); a digest is its algorithm byte and raw bytes, so its
// length follows from its first byte; a number is 8 bytes (u64) or 4 (u32),
// big-endian. The numbers below are the format: append only (M7).
//
//	byte  range             key after the range byte          value
//	0x01  system            -                                 System
//	0x02  clock             -                                 Clock
//	0x03  applied           -                                 Applied      outside the hash
//	0x04  witness           -                                 Witness      outside the hash
//	0x05  chain             -                                 Chain        outside the hash
//	0x06  chain note        u64 index                         Chain        outside the hash
//	0x07  defect            u64 index, u32 n                  Defect       outside the hash
//	0x08  node              name id                           Node
//	0x09  origin            name node                         OriginRow
//	0x0a  origin result     name node, name boot, u64 seq     Result, without its message
//	0x10  usage             name project                      Usage
//	0x11  repository        name repository                   Repository
//	0x12  manifest body     digest                            ManifestBody
//	0x13  manifest          name repository, digest           Manifest
//	0x14  tag               name repository, name tag         Tag
//	0x15  tagged            name repository, digest, name tag nothing: the tags of a digest, without a scan
//	0x16  reference         digest blob, name repository,
//	                        digest manifest                   nothing: who needs this blob
//	0x17  absent            as reference                      nothing: named by a sparse manifest, not live there; grants
//	                                                          nothing, becomes a reference when the blob arrives there
//	0x18  grace             digest blob, name repository      Grace
//	0x19  graced            name repository, digest blob      nothing: the grace rows of a repository
//	0x1a  blob              digest                            Blob
//	0x1b  object            name store, name key              Object
//	0x1c  child             name repository, digest child,
//	                        digest index                      nothing: which indexes name it
//	0x1d  referrer          name repository, digest subject,
//	                        name artifact type, digest        Referrer
//	0x1e  pulls             name repository, digest           Pulls
//	0x20  upload            name id                           Upload
//	0x21  event             u64 index, u32 n                  Event
//	0x22  lock              name lock                         Lock
//	0x23  collection        -                                 Collection
//	0x24  cycle             u64 index                         Cycle: the history
//	0x25  backup            name id                           Backup
//	0x26  departed          name repository, digest subject   Departed
//	0x27  restoring         -                                 nothing: a Restore has begun and not ended; opens nowhere
const (
	rangeSystem       byte = 0x01
	rangeClock        byte = 0x02
	rangeApplied      byte = 0x03
	rangeWitness      byte = 0x04
	rangeChain        byte = 0x05
	rangeChainNote    byte = 0x06
	rangeDefect       byte = 0x07
	rangeNode         byte = 0x08
	rangeOrigin       byte = 0x09
	rangeOriginResult byte = 0x0a
	rangeUsage        byte = 0x10
	rangeRepository   byte = 0x11
	rangeManifestBody byte = 0x12
	rangeManifest     byte = 0x13
	rangeTag          byte = 0x14
	rangeTagged       byte = 0x15
	rangeReference    byte = 0x16
	rangeAbsent       byte = 0x17
	rangeGrace        byte = 0x18
	rangeGraced       byte = 0x19
	rangeBlob         byte = 0x1a
	rangeObject       byte = 0x1b
	rangeChild        byte = 0x1c
	rangeReferrer     byte = 0x1d
	rangePulls        byte = 0x1e
	rangeUpload       byte = 0x20
	rangeEvent        byte = 0x21
	rangeLock         byte = 0x22
	rangeCollection   byte = 0x23
	rangeCycle        byte = 0x24
	rangeBackup       byte = 0x25
	rangeDeparted     byte = 0x26
	rangeRestoring    byte = 0x27
)

// part is what a key is made of.
type part interface{ ~string | ~[]byte }

func addName[S part](k []byte, s S) []byte { return append(append(k, s...), 0) }

// The functions below append a key, or the prefix of keys, to k.

func oneRow(k []byte, r byte) []byte { return append(k, r) }

func nameKey(k []byte, r byte, name string) []byte { return addName(append(k, r), name) }

func digestKey(k []byte, r byte, d Digest) []byte { return append(append(k, r), d...) }

// inRepository is the key of what a repository holds by digest: a manifest, its
// pulls, a grace; also the prefix of tagged, child and referrer.
func inRepository(k []byte, r byte, repository string, d Digest) []byte {
	return append(nameKey(k, r, repository), d...)
}

// ofBlob is the key of a grace, and the prefix of references and absents.
func ofBlob(k []byte, r byte, d Digest, repository string) []byte {
	return addName(digestKey(k, r, d), repository)
}

func linkKey(k []byte, r byte, blob Digest, repository string, manifest Digest) []byte {
	return append(ofBlob(k, r, blob, repository), manifest...)
}

func tagKey(k []byte, repository, tag string) []byte {
	return addName(nameKey(k, rangeTag, repository), tag)
}

func taggedKey(k []byte, repository string, d Digest, tag string) []byte {
	return addName(inRepository(k, rangeTagged, repository, d), tag)
}

func childKey(k []byte, repository string, child, index Digest) []byte {
	return append(inRepository(k, rangeChild, repository, child), index...)
}

func referrerKey(k []byte, repository string, subject Digest, artifactType string, d Digest) []byte {
	return append(addName(inRepository(k, rangeReferrer, repository, subject), artifactType), d...)
}

func objectKey(k []byte, store, key string) []byte {
	return addName(nameKey(k, rangeObject, store), key)
}

func placeKey(k []byte, r byte, index uint64, n uint32) []byte {
	return binary.BigEndian.AppendUint32(indexKey(k, r, index), n)
}

func indexKey(k []byte, r byte, index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(k, r), index)
}

func resultKey(k []byte, node, boot string, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(resultPrefix(k, node, boot), sequence)
}

func resultPrefix(k []byte, node, boot string) []byte {
	return addName(nameKey(k, rangeOriginResult, node), boot)
}

// beyond answers the first key after all that begin with prefix.
func beyond(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// next answers the first key after key itself.
func next(key []byte) []byte { return append(bytes.Clone(key), 0) }

// cutName splits a name off the rest of a key.
func cutName(k []byte) (name string, rest []byte) {
	if i := bytes.IndexByte(k, 0); i >= 0 {
		return string(k[:i]), k[i+1:]
	}
	return string(k), nil
}

// cutDigest splits a digest off the rest of a key.
func cutDigest(k []byte) (d Digest, rest []byte) {
	if len(k) == 0 {
		return "", nil
	}
	n := 1 + algorithmOf(k[0]).Size()
	if len(k) < n {
		return "", nil
	}
	return Digest(k[:n]), k[n:]
}

// cutPlace splits the place of an event or a defect off a key.
func cutPlace(k []byte) (index uint64, n uint32) {
	if len(k) != 12 {
		return 0, 0
	}
	return binary.BigEndian.Uint64(k), binary.BigEndian.Uint32(k[8:])
}

// outsideHash says whether a row is no part of what nodes must agree on (M9).
func outsideHash(key string) bool { return key[0] >= rangeApplied && key[0] <= rangeDefect }

// hasNUL is what makes a name unfit for a key.
func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }

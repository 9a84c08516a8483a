package meta

import "fmt"

// rangeName is what keys.go calls a range; what this release does not know is its number.
func rangeName(r byte) string {
	names := map[byte]string{
		rangeSystem: "system", rangeClock: "clock", rangeApplied: "applied", rangeWitness: "witness", rangeChain: "chain",
		rangeChainNote: "chain note", rangeDefect: "defect", rangeNode: "node", rangeOrigin: "origin", rangeOriginResult: "origin result",
		rangeUsage: "usage", rangeRepository: "repository", rangeManifestBody: "manifest body", rangeManifest: "manifest", rangeTag: "tag",
		rangeTagged: "tagged", rangeReference: "reference", rangeAbsent: "absent", rangeGrace: "grace", rangeGraced: "graced", rangeBlob: "blob",
		rangeObject: "object", rangeChild: "child", rangeReferrer: "referrer", rangePulls: "pulls", rangeUpload: "upload", rangeEvent: "event",
		rangeLock: "lock", rangeCollection: "collection", rangeCycle: "cycle", rangeBackup: "backup", rangeDeparted: "departed",
	}
	if name := names[r]; name != "" {
		return name
	}
	return fmt.Sprintf("range %#02x", r)
}

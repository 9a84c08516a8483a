package backup

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// Prefix begins the name of every object of every cluster's backups.
	Prefix       = "pontoon-backup/"
	manifestName = "manifest.json"
	digits       = 20
)

// folder is where a cluster's life keeps its backups.
func folder(clusterID string, incarnation uint64) string {
	return fmt.Sprintf("%s%s/%020d/", Prefix, clusterID, incarnation)
}

func fullFolder(clusterID string, incarnation uint64) string {
	return folder(clusterID, incarnation) + "full/"
}

func logFolder(clusterID string, incarnation uint64) string {
	return folder(clusterID, incarnation) + "log/"
}

func chunkName(n int) string { return fmt.Sprintf("rows-%05d.zst", n) }

func segmentName(first, last uint64) string { return fmt.Sprintf("%020d-%020d.zst", first, last) }

// Place says where an object of a backup belongs, by its name.
type Place struct {
	ClusterID   string
	Incarnation uint64
	// Folder is the snapshot's, with a slash at its end; empty for a segment.
	Folder string
	// Index and ID are of a snapshot.
	Index uint64
	ID    string
	// First and Last are a segment's range.
	First, Last uint64
	// File is the last element.
	File string
}

// parseName is the inverse of the grammar of names; false for what is none.
func parseName(name string) (p Place, ok bool) {
	rest, ok := strings.CutPrefix(name, Prefix)
	e := strings.Split(rest, "/")
	if !ok || len(e) < 4 || e[0] == "" {
		return p, false
	}
	p.ClusterID, p.File = e[0], e[len(e)-1]
	if p.Incarnation, ok = number(e[1]); !ok {
		return p, false
	}
	switch {
	case e[2] == "full" && len(e) == 5 && p.File != "":
		index, id, found := strings.Cut(e[3], "-")
		p.Index, ok = number(index)
		p.ID = id
		p.Folder = fullFolder(p.ClusterID, p.Incarnation) + e[3] + "/"
		return p, ok && found && id != ""
	case e[2] == "log" && len(e) == 4:
		first, last, found := strings.Cut(strings.TrimSuffix(p.File, ".zst"), "-")
		var lastOK bool
		p.First, ok = number(first)
		p.Last, lastOK = number(last)
		return p, ok && lastOK && found && strings.HasSuffix(p.File, ".zst") && p.First > 0 && p.First <= p.Last
	}
	return p, false
}

// number parses 20 digits.
func number(s string) (uint64, bool) {
	if len(s) != digits || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

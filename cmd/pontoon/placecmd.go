package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/pontoon-registry/pontoon/cluster/backup"
)

// placed is a snapshot that lies in a place, for JSON.
type placed struct {
	Name        string `json:"name"`
	Cluster     string `json:"cluster"`
	Incarnation uint64 `json:"incarnation"`
	Index       uint64 `json:"index"`
	Size        int64  `json:"size"`
	Complete    bool   `json:"complete"`
}

// listPlace lists what lies in a place, by names alone: nothing of it is read.
func (a *app) listPlace(ctx context.Context, src string) (err error) {
	c, err := loadConfig(a.config, a.host)
	if err != nil {
		return err
	}
	s, err := openSource(ctx, c.Config, src)
	if err != nil {
		return coded(err)
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if s.archive == nil {
		return &usageError{fmt.Sprintf("%s is a file and holds one snapshot: pontoon snapshot inspect shows it", src)}
	}
	stored, err := backup.List(ctx, s.archive, s.sel.ClusterID)
	if err != nil {
		return err
	}
	all := []placed{}
	for _, x := range stored {
		all = append(all, placed{x.Folder, x.ClusterID, x.Incarnation, x.Index, x.Size, x.Complete})
	}
	if a.json() {
		return a.showJSON(struct {
			Snapshots []placed `json:"snapshots"`
		}{all})
	}
	rows := make([][]string, 0, len(all))
	for _, x := range all {
		state := "complete"
		if !x.Complete {
			state = "unfinished"
		}
		rows = append(rows, []string{x.Cluster, strconv.FormatUint(x.Incarnation, 10), strconv.FormatUint(x.Index, 10), state, size(x.Size), x.Name})
	}
	return a.write(func(w io.Writer) { columns(w, "CLUSTER\tINCARNATION\tINDEX\tSTATE\tSIZE\tNAME", rows) })
}

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pontoon-registry/pontoon/cluster"
)

func newClusterRecover(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "recover", Short: "After the loss of a majority: let the node here go on alone",
		Long: "For when a majority of the voters is lost for good, disks included. If enough of them can be started again, do\n" +
			"that instead: nothing is lost then.\n\n" +
			"1. Stop all nodes that are left, and make sure that the others never start again on their old data.\n" +
			"2. Call this verb without --yes on each: it changes nothing and prints how far that node's log has come.\n" +
			"3. Choose the node with the highest last term; among equals, the one with the highest last index.\n" +
			"4. There, and only there, call it with --yes, and start the node: it is the only voter of the cluster.\n" +
			"   All that its log holds becomes true, also what was never acknowledged. What only lost nodes had is gone.\n" +
			"5. Empty the data directories of all other nodes and start them: they join as new ones.\n\n" +
			"The cluster begins another incarnation with it: an old member that comes back all the same is refused.",
		Example: "  pontoon cluster recover            # look\n  pontoon cluster recover --yes      # on the chosen node",
		Args:    exactly(0),
		RunE: func(*cobra.Command, []string) error {
			c, err := loadConfig(a.config, a.host)
			if err != nil {
				return err
			}
			return a.recover(c.Cluster.DataDir, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it; without it the verb only looks")
	return cmd
}

func (a *app) recover(dataDir string, yes bool) (err error) {
	r, err := cluster.OpenRecovery(dataDir)
	if err != nil {
		return &codedError{exitConflict, err}
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	before := r.Standing
	if yes {
		if err := r.Recover(time.Now()); err != nil {
			return err
		}
	}
	if a.json() {
		return a.showJSON(struct {
			Node        string   `json:"node"`
			Cluster     string   `json:"cluster"`
			Incarnation uint64   `json:"incarnation"`
			LastTerm    uint64   `json:"lastTerm"`
			LastIndex   uint64   `json:"lastIndex"`
			Applied     uint64   `json:"applied"`
			Voters      []string `json:"voters"`
			Recovered   bool     `json:"recovered"`
		}{r.NodeID, r.ClusterID, r.Incarnation, r.LastTerm, r.LastIndex, r.Applied, r.Voters, yes})
	}
	writeStanding(a.out, before)
	if !yes {
		_, err = fmt.Fprint(a.out, "\nNothing was changed. Of all nodes that are left choose the one with the highest last term, among equals the one\n"+
			"with the highest last index, and call `pontoon cluster recover --yes` there and nowhere else: see --help.\n")
		return err
	}
	_, err = fmt.Fprintf(a.out, "\nRecovered: this node is the only voter, incarnation %d. Its whole log up to entry %d becomes true, acknowledged or not.\n"+
		"Start it. Then empty the data directories of all other nodes and start them: they join as new ones.\n", r.Incarnation, before.LastIndex)
	return err
}

func writeStanding(w io.Writer, s cluster.Standing) {
	for _, l := range [][2]string{
		{"node", s.NodeID}, {"cluster", fmt.Sprintf("%s, incarnation %d", s.ClusterID, s.Incarnation)},
		{"last term", fmt.Sprint(s.LastTerm)}, {"last index", fmt.Sprint(s.LastIndex)}, {"applied", fmt.Sprint(s.Applied)},
		{"voters", strings.Join(s.Voters, ", ")},
	} {
		_, _ = fmt.Fprintf(w, "%-10s %s\n", l[0], l[1])
	}
}

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/pontoon-registry/pontoon/cluster"
)

// release is stamped by the linker: -X main.release=v1.2.3.
var release = ""

// releaseName is the stamp, else what the Go tool knows of the module.
func releaseName() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show release, Go and command version",
		Example: "  pontoon version -o json",
		Args:    exactly(0),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Release string `json:"release"`
				Go      string `json:"go"`
				System  string `json:"system"`
				Command int    `json:"commandVersion"`
			}{releaseName(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, cluster.CommandVersion}
			if a.json() {
				return a.showJSON(v)
			}
			_, err := fmt.Fprintf(a.out, "pontoon %s (%s, %s), command version %d\n", v.Release, v.Go, v.System, v.Command)
			return err
		},
	}
}

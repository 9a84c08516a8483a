package main

import "github.com/spf13/cobra"

func newSnapshot(a *app) *cobra.Command {
	return group("snapshot", "Save, check and restore the state of the cluster",
		newSnapshotSave(a), newSnapshotList(a), newSnapshotInspect(a), newSnapshotVerify(a), newSnapshotRestore(a), newSnapshotRelease(a), newSnapshotRetire(a))
}

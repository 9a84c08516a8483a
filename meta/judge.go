package meta

import (
	"fmt"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// judge applies one command: it answers the result, or a refusal (*Error).
// Every rule is a method of the noun's file.
func (t *txn) judge(c *metav1.Command) (*metav1.Result, error) {
	switch k := c.GetKind().(type) {
	case *metav1.Command_InitCluster:
		return t.initCluster(k.InitCluster)
	case *metav1.Command_OpenTerm:
		return t.openTerm(k.OpenTerm)
	case *metav1.Command_RegisterOrigin:
		return t.registerOrigin(k.RegisterOrigin)
	case *metav1.Command_PutNode:
		return t.putNode(k.PutNode)
	}
	if err := t.ready(); err != nil {
		return nil, err
	}
	switch k := c.GetKind().(type) {
	case *metav1.Command_RemoveNode:
		return t.removeNode(k.RemoveNode)

	case *metav1.Command_OpenUpload:
		return t.openUpload(k.OpenUpload)
	case *metav1.Command_TakeUpload:
		return t.takeUpload(k.TakeUpload)
	case *metav1.Command_SaveUpload:
		return t.saveUpload(k.SaveUpload)
	case *metav1.Command_CommitUpload:
		return t.commitUpload(k.CommitUpload)
	case *metav1.Command_CancelUpload:
		return t.cancelUpload(k.CancelUpload)
	case *metav1.Command_ExpireUploads:
		return t.expireUploads(k.ExpireUploads)

	case *metav1.Command_MountBlob:
		return t.mountBlob(k.MountBlob)
	case *metav1.Command_ConfirmContent:
		return t.confirmContent(k.ConfirmContent)
	case *metav1.Command_DeleteBlob:
		return t.deleteBlob(k.DeleteBlob)
	case *metav1.Command_MarkLost:
		return t.markLost(k.MarkLost)

	case *metav1.Command_PutManifest:
		return t.putManifest(k.PutManifest)
	case *metav1.Command_DeleteManifest:
		return t.deleteManifest(k.DeleteManifest)
	case *metav1.Command_DeleteTag:
		return t.deleteTag(k.DeleteTag)
	case *metav1.Command_DeleteRepository:
		return t.deleteRepository(k.DeleteRepository)
	case *metav1.Command_AddPulls:
		return t.addPulls(k.AddPulls)

	case *metav1.Command_AcquireLock:
		return t.acquireLock(k.AcquireLock)
	case *metav1.Command_RenewLock:
		return t.renewLock(k.RenewLock)
	case *metav1.Command_ReleaseLock:
		return t.releaseLock(k.ReleaseLock)
	case *metav1.Command_ExpireLocks:
		return t.expireLocks(k.ExpireLocks)

	case *metav1.Command_TrimEvents:
		return t.trimEvents(k.TrimEvents)

	case *metav1.Command_RaiseVersion:
		return t.raiseVersion(k.RaiseVersion)
	case *metav1.Command_RaiseIncarnation:
		return t.raiseIncarnation(k.RaiseIncarnation)

	case *metav1.Command_RequestCycle:
		return t.requestCycle(k.RequestCycle)
	case *metav1.Command_BeginCycle:
		return t.beginCycle(k.BeginCycle)
	case *metav1.Command_AdvanceCycle:
		return t.advanceCycle(k.AdvanceCycle)
	case *metav1.Command_CondemnBlobs:
		return t.condemnBlobs(k.CondemnBlobs)
	case *metav1.Command_DeleteUntagged:
		return t.deleteUntagged(k.DeleteUntagged)
	case *metav1.Command_ForgetKeys:
		return t.forgetKeys(k.ForgetKeys)

	case *metav1.Command_OpenBackup:
		return t.openBackup(k.OpenBackup)
	case *metav1.Command_CompleteBackup:
		return t.completeBackup(k.CompleteBackup)
	case *metav1.Command_RetireBackup:
		return t.retireBackup(k.RetireBackup)
	case *metav1.Command_ForgetBackup:
		return t.forgetBackup(k.ForgetBackup)
	}
	return nil, fmt.Errorf("kind of command %T: %w", c.GetKind(), ErrFormat)
}

func counted(rows int64, more bool) *metav1.Result {
	return &metav1.Result{Value: &metav1.Result_Count{Count: &metav1.CountResult{Rows: rows, More: more}}}
}

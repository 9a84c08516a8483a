package cluster

import (
	"strings"
	"testing"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// TestADefectIsToldOnce, with the log index that whoever sent the command was told.
func TestADefectIsToldOnce(t *testing.T) {
	t.Parallel()
	said := &lines{}
	all := []*metav1.Defect{{Index: 3, Command: "put_tag", Message: "old"}, {Index: 7, Command: "acquire_lock", Message: "panic: nil"},
		{Index: 7, Command: "put_tag", Message: "another of the same entry"}}
	told := tellDefects(said.logger(), all, 3)
	if told != 7 || said.count() != 2 || !strings.Contains(said.all[0], "index=7") || !strings.Contains(said.all[0], "panic: nil") {
		t.Errorf("told up to %d: %v", told, said.all)
	}
	if told = tellDefects(said.logger(), all, told); told != 7 || said.count() != 2 {
		t.Errorf("told again, up to %d: %v", told, said.all)
	}
}

//go:build faults

package main

import (
	"cmp"
	"encoding/json"
	"net/http"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// change is an event of the ledger as GET /events tells it.
type change struct {
	Action     string `json:"action"`
	Request    string `json:"request,omitempty"`
	Repository string `json:"repository,omitempty"`
	Tag        string `json:"tag,omitempty"`
	Digest     string `json:"digest,omitempty"` // what came, else what was removed
	Subject    string `json:"subject,omitempty"`
}

// events tells all events that the ledger keeps, the oldest first, at one index: one line of JSON each. An answer without
// the last line, which is empty, is not whole.
func (f *faults) events(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	ledger := f.shown
	f.mu.Unlock()
	if ledger == nil {
		http.Error(w, "the node has not opened its ledger yet", http.StatusServiceUnavailable)
		return
	}
	out := json.NewEncoder(w)
	err := ledger.View(r.Context(), meta.Read{}, func(v *meta.View) error {
		for after, more := (meta.EventCursor{}), true; more; {
			rows, further, err := v.Events(after, 1000)
			if err != nil {
				return err
			}
			for _, e := range rows {
				if err := out.Encode(changeOf(e.Event)); err != nil {
					return err
				}
				after = e.EventCursor
			}
			more = further
		}
		return nil
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("\n"))
}

func changeOf(e *metav1.Event) change {
	digest := cmp.Or(meta.Digest(e.GetAfter()), meta.Digest(e.GetBefore()))
	return change{Action: e.GetAction().String(), Request: e.GetRequestId(), Repository: e.GetRepository(), Tag: e.GetTag(),
		Digest: digest.String(), Subject: e.GetSubject()}
}

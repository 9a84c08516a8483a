package chaos

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/pontoon-registry/pontoon/chaos/check"
)

// eventsTime bounds the reading of all events, of which the ledger keeps a million.
const eventsTime = 2 * time.Minute

// effects reads the ledger's events from a node, for I9. Trimmed says that the oldest are not kept any more.
func (p *points) effects() (effects []check.Effect, trimmed bool, err error) {
	client := &http.Client{Timeout: eventsTime}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://" + p.addr + "/events")
	if err != nil {
		return nil, false, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, false, fmt.Errorf("events: answered %d", res.StatusCode)
	}
	trimmed = true
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 { // the end
			return effects, trimmed, nil
		}
		var e struct{ Action, Request, Repository, Tag, Digest, Subject string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, false, fmt.Errorf("events: line %d: %w", len(effects), err)
		}
		kind := check.Kind(e.Action)
		switch e.Action {
		case "ACTION_INIT_CLUSTER":
			trimmed = false
		case "ACTION_PUT_TAG":
			kind = check.TagPut
		}
		effects = append(effects, check.Effect{Request: e.Request, Kind: kind, Repo: e.Repository, Tag: e.Tag, Digest: e.Digest, Subject: e.Subject})
	}
	if err = lines.Err(); err == nil {
		err = io.ErrUnexpectedEOF
	}
	return nil, false, fmt.Errorf("events: after %d: %w", len(effects), err)
}

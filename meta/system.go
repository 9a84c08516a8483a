package meta

import (
	"google.golang.org/protobuf/proto"

	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// Durations, in nanoseconds: the package has no clock (M1).
const (
	second int64 = 1e9
	hour         = 3600 * second
)

// DefaultSettings are what a cluster runs with unless its configuration says
// otherwise: grace 1 h, uploads 24 h, deletion no sooner than 25 h, a million events or 90 days.
func DefaultSettings() *metav1.Settings {
	return &metav1.Settings{
		Grace:          hour,
		UploadLifetime: 24 * hour,
		DeleteDelay:    25 * hour,
		EventCount:     1_000_000,
		EventAge:       90 * 24 * hour,
	}
}

// initCluster names the cluster, once.
func (t *txn) initCluster(c *metav1.InitCluster) (*metav1.Result, error) {
	if id := t.system.GetClusterId(); id != "" {
		return nil, conflict(metav1.Noun_NOUN_CLUSTER, "cluster: is initialised already, as %s", id)
	}
	if err := checkName(metav1.Noun_NOUN_CLUSTER, "cluster id", c.GetClusterId()); err != nil {
		return nil, err
	}
	if !isEpoch(c.GetEpoch()) {
		return nil, invalid(metav1.Noun_NOUN_CLUSTER, "epoch: got %q, expected 1 to 32 lowercase letters and digits", clip(c.GetEpoch()))
	}
	if c.GetVersion() == 0 {
		return nil, invalid(metav1.Noun_NOUN_CLUSTER, "cluster version: got 0, expected at least 1")
	}
	if c.GetVersion() > NewestVersion {
		// A refusal would depend on the binary (M7).
		return nil, ErrFormat
	}
	row := proto.CloneOf(t.system)
	row.ClusterId, row.Epoch, row.Incarnation = c.GetClusterId(), c.GetEpoch(), c.GetIncarnation()
	row.Version, row.Name = c.GetVersion(), c.GetName()
	t.putSystem(row)
	t.event(&metav1.Event{Action: metav1.Action_ACTION_INIT_CLUSTER, Subject: c.GetClusterId()})
	return nil, nil
}

func isEpoch(s string) bool {
	for i := range len(s) {
		if !isLowerAlnum(s[i]) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 32
}

// openTerm says who leads, and by which settings; a term never falls.
func (t *txn) openTerm(c *metav1.OpenTerm) (*metav1.Result, error) {
	if c.GetTerm() < t.system.GetTerm() {
		return nil, conflict(metav1.Noun_NOUN_CLUSTER, "term: got %d, it is %d already", c.GetTerm(), t.system.GetTerm())
	}
	s := c.GetSettings()
	if s == nil {
		s = t.settings()
	}
	if err := checkSettings(s); err != nil {
		return nil, err
	}
	row := proto.CloneOf(t.system)
	row.Term, row.Leader, row.Settings = c.GetTerm(), c.GetNodeId(), proto.CloneOf(s)
	t.putSystem(row)
	return nil, nil
}

func checkSettings(s *metav1.Settings) error {
	check := func(field string, got, least int64) error {
		if got < least {
			return invalid(metav1.Noun_NOUN_CLUSTER, "settings: %s: got %d, expected at least %d", field, got, least)
		}
		return nil
	}
	if err := check("grace", s.GetGrace(), 1); err != nil {
		return err
	}
	if err := check("upload_lifetime", s.GetUploadLifetime(), 1); err != nil {
		return err
	}
	if err := check("delete_delay", s.GetDeleteDelay(), 0); err != nil {
		return err
	}
	if err := check("event_count", s.GetEventCount(), 0); err != nil {
		return err
	}
	return check("event_age", s.GetEventAge(), 0)
}

// ready refuses everything before the cluster has a name, and settings.
func (t *txn) ready() error {
	if t.system.GetClusterId() == "" || t.settings() == nil {
		return Refuse(metav1.Kind_KIND_UNAVAILABLE, metav1.Noun_NOUN_CLUSTER, "cluster: is not initialised yet")
	}
	return nil
}

func (t *txn) putSystem(row *metav1.System) {
	t.system = row
	t.put(oneRow(t.key[:0], rangeSystem), row)
}

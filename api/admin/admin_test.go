package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pontoon-registry/pontoon/meta"
	"github.com/pontoon-registry/pontoon/meta/kv"
	adminv1 "github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1"
	"github.com/pontoon-registry/pontoon/proto/pontoon/admin/v1/adminv1connect"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// rig is the services on a socket, over the real rules.
type rig struct {
	ledger       *meta.Solo
	clock        atomic.Int64
	path         string
	http         *http.Client
	repositories adminv1connect.RepositoryServiceClient
	locks        adminv1connect.LockServiceClient
	status       adminv1connect.StatusServiceClient
	members      adminv1connect.MemberServiceClient
	collection   adminv1connect.CollectionServiceClient
	crew         crew
	gc           keeper
	saver        saver
	snapshots    adminv1connect.SnapshotServiceClient
}

// known answers a fixed status.
type known struct{}

func (known) Status(context.Context) (*adminv1.GetStatusResponse, error) {
	return &adminv1.GetStatusResponse{Node: &adminv1.NodeStatus{Id: "n1", Ready: true}}, nil
}

func newRig(t *testing.T) *rig {
	t.Helper()
	store, err := kv.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{path: filepath.Join(shortDir(t), "s")}
	r.clock.Store(time.Now().UnixNano())
	if r.ledger, err = meta.NewSolo(store, r.clock.Load); err != nil {
		t.Fatal(err)
	}
	handler, err := New(Config{Ledger: r.ledger, Members: known{}, Membership: &r.crew, Trust: &r.crew, Collector: &r.gc, Backups: &r.saver})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(t.Context(), r.path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: handler, ConnContext: ConnContext, Protocols: &protocols, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
		if err := r.ledger.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	r.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.path)
	}}}
	r.repositories = adminv1connect.NewRepositoryServiceClient(r.http, "http://s")
	r.locks = adminv1connect.NewLockServiceClient(r.http, "http://s")
	r.status = adminv1connect.NewStatusServiceClient(r.http, "http://s")
	r.members = adminv1connect.NewMemberServiceClient(r.http, "http://s")
	r.collection = adminv1connect.NewCollectionServiceClient(r.http, "http://s")
	r.snapshots = adminv1connect.NewSnapshotServiceClient(r.http, "http://s")
	return r
}

// shortDir is a temporary directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// put commits a manifest of its own, or an index of children, and answers its digest.
func (r *rig) put(t *testing.T, repository, salt string, children []meta.Digest, subject meta.Digest, tags ...string) meta.Digest {
	t.Helper()
	body := []byte(fmt.Sprintf(`{"schemaVersion":2,"annotations":{"salt":%q}}`, salt))
	d, err := meta.ParseDigest(digestOf(body))
	if err != nil {
		t.Fatal(err)
	}
	cmd := &metav1.PutManifest{
		Repository: repository, Digest: d.Bytes(), MediaType: "application/vnd.oci.image.index.v1+json", Body: body,
		Size: int64(len(body)), Subject: subject.Bytes(), ArtifactType: "application/x", Tags: tags,
	}
	for _, c := range children {
		cmd.Children = append(cmd.Children, c.Bytes())
	}
	if _, err := r.ledger.Propose(t.Context(), &metav1.Command{
		Envelope: &metav1.Envelope{Actor: &metav1.Actor{Name: "ada"}},
		Kind:     &metav1.Command_PutManifest{PutManifest: cmd},
	}); err != nil {
		t.Fatal(err)
	}
	return d
}

func codeIs(t *testing.T, err error, want connect.Code) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != want {
		t.Errorf("got %v, expected code %s", err, want)
	}
}

func TestListsArePagedInOrder(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.put(t, fmt.Sprintf("team/r%d", i), "x", nil, "", "v1", "v2")
	}
	var names []string
	for token, pages := "", 0; ; pages++ {
		res, err := r.repositories.ListRepositories(t.Context(), &adminv1.ListRepositoriesRequest{PageSize: 2, PageToken: token})
		if err != nil || pages > 3 {
			t.Fatalf("page %d: %v", pages, err)
		}
		for _, row := range res.GetRepositories() {
			names = append(names, row.GetName())
			if row.GetTags() != 2 || row.GetManifests() != 1 || row.GetCreated() == nil {
				t.Errorf("got %v", row)
			}
		}
		if token = res.GetNextPageToken(); token == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "team/r0 team/r1 team/r2 team/r3 team/r4" {
		t.Errorf("got %s", got)
	}
	tags, err := r.repositories.ListTags(t.Context(), &adminv1.ListTagsRequest{Repository: "team/r1", PageSize: 1})
	if err != nil || len(tags.GetTags()) != 1 || tags.GetTags()[0].GetPushedBy() != "ada" || tags.GetNextPageToken() != "v1" {
		t.Errorf("got %v, %v", tags, err)
	}
}

func TestManifestsAreListedWithTheirTags(t *testing.T) {
	r := newRig(t)
	child := r.put(t, "a", "child", nil, "")
	index := r.put(t, "a", "index", []meta.Digest{child}, "", "v1", "v2")
	res, err := r.repositories.ListManifests(t.Context(), &adminv1.ListManifestsRequest{Repository: "a", PageSize: 1})
	if err != nil || len(res.GetManifests()) != 1 || res.GetNextPageToken() == "" {
		t.Fatalf("got %v, %v", res, err)
	}
	rest, err := r.repositories.ListManifests(t.Context(), &adminv1.ListManifestsRequest{Repository: "a", PageToken: res.GetNextPageToken()})
	if err != nil || len(rest.GetManifests()) != 1 {
		t.Fatalf("got %v, %v", rest, err)
	}
	for _, m := range append(res.GetManifests(), rest.GetManifests()...) {
		if want := map[string]int{index.String(): 2, child.String(): 0}[m.GetDigest()]; len(m.GetTags()) != want {
			t.Errorf("%s has tags %v, expected %d", m.GetDigest(), m.GetTags(), want)
		}
	}
}

func TestAPreviewChangesNothingAndTheRemovalDoesWhatItSaid(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	child := r.put(t, "a", "child", nil, "")
	index := r.put(t, "a", "index", []meta.Digest{child}, "", "v1", "v2")
	sig := r.put(t, "a", "sig", nil, index)

	tag, err := r.repositories.RemoveTag(ctx, &adminv1.RemoveTagRequest{Repository: "a", Tag: "v1", Preview: true})
	if err != nil || tag.GetTag().GetDigest() != index.String() || strings.Join(tag.GetRemainingTags(), " ") != "v2" {
		t.Errorf("got %v, %v", tag, err)
	}
	preview, err := r.repositories.RemoveManifest(ctx, &adminv1.RemoveManifestRequest{Repository: "a", Digest: child.String(), Preview: true})
	if err != nil || len(preview.GetUsers()) != 1 || preview.GetUsers()[0] != index.String() {
		t.Errorf("got %v, %v", preview, err)
	}
	_, err = r.repositories.RemoveManifest(ctx, &adminv1.RemoveManifestRequest{Repository: "a", Digest: child.String()})
	codeIs(t, err, connect.CodeFailedPrecondition)
	if names := refusalOf(t, err).GetNames(); len(names) != 1 || names[0] != index.String() {
		t.Errorf("got names %v, expected the index", names)
	}
	preview, err = r.repositories.RemoveManifest(ctx, &adminv1.RemoveManifestRequest{Repository: "a", Digest: index.String(), Preview: true})
	if err != nil || len(preview.GetUsers()) != 0 || len(preview.GetManifest().GetTags()) != 2 ||
		len(preview.GetReferrers()) != 1 || preview.GetReferrers()[0] != sig.String() {
		t.Errorf("got %v, %v", preview, err)
	}
	all, err := r.repositories.ListManifests(ctx, &adminv1.ListManifestsRequest{Repository: "a"})
	if err != nil || len(all.GetManifests()) != 3 {
		t.Fatalf("after previews: got %v, %v", all, err)
	}

	if _, err := r.repositories.RemoveTag(ctx, &adminv1.RemoveTagRequest{Repository: "a", Tag: "v1", Digest: index.String()}); err != nil {
		t.Error(err)
	}
	if _, err := r.repositories.RemoveManifest(ctx, &adminv1.RemoveManifestRequest{Repository: "a", Digest: index.String()}); err != nil {
		t.Error(err)
	}
	tags, err := r.repositories.ListTags(ctx, &adminv1.ListTagsRequest{Repository: "a"})
	if err != nil || len(tags.GetTags()) != 0 {
		t.Errorf("got %v, %v", tags, err)
	}
	if _, err := r.repositories.RemoveRepository(ctx, &adminv1.RemoveRepositoryRequest{Name: "a"}); err != nil {
		t.Error(err)
	}
	_, err = r.repositories.ListTags(ctx, &adminv1.ListTagsRequest{Repository: "a"})
	codeIs(t, err, connect.CodeNotFound)
}

func TestATagThatHasMovedIsNotRemovedByItsOldDigest(t *testing.T) {
	r := newRig(t)
	old := r.put(t, "a", "old", nil, "", "v1")
	current := r.put(t, "a", "new", nil, "", "v1")
	_, err := r.repositories.RemoveTag(t.Context(), &adminv1.RemoveTagRequest{Repository: "a", Tag: "v1", Digest: old.String()})
	codeIs(t, err, connect.CodeFailedPrecondition)
	if got := refusalOf(t, err).GetCurrent(); got != current.String() {
		t.Errorf("got current %q, expected %s", got, current)
	}
}

func refusalOf(t *testing.T, err error) *metav1.Refusal {
	t.Helper()
	var call *connect.Error
	if !asConnect(err, &call) || len(call.Details()) != 1 {
		t.Fatalf("got %v, expected a connect error with one detail", err)
	}
	v, err := call.Details()[0].Value()
	if err != nil {
		t.Fatal(err)
	}
	return v.(*metav1.Refusal)
}

func TestARemovalIsInTheEventsWithTheOperatorsName(t *testing.T) {
	r := newRig(t)
	r.put(t, "a", "x", nil, "", "v1")
	if _, err := r.repositories.RemoveTag(t.Context(), &adminv1.RemoveTagRequest{Repository: "a", Tag: "v1"}); err != nil {
		t.Fatal(err)
	}
	var last meta.EventItem
	if err := r.ledger.View(t.Context(), meta.Read{}, func(v *meta.View) error {
		rows, _, err := v.Events(meta.EventCursor{}, 100)
		last = rows[len(rows)-1]
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if last.GetAction() != metav1.Action_ACTION_DELETE_TAG || last.GetMethod() != "socket" || last.GetActor() != nameOf(os.Geteuid()) || last.GetRequestId() == "" {
		t.Errorf("got %v", last.Event)
	}
}

func TestALockIsHeldOnceAndItsTokensRise(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	acquire := func() (*adminv1.AcquireLockResponse, error) {
		return r.locks.AcquireLock(ctx, &adminv1.AcquireLockRequest{Name: "l", Holder: "ci", Ttl: durationpb.New(time.Minute)})
	}
	first, err := acquire()
	if err != nil {
		t.Fatal(err)
	}
	_, err = acquire()
	codeIs(t, err, connect.CodeAborted)
	r.clock.Add(int64(30 * time.Second))
	if _, err := r.locks.RenewLock(ctx, &adminv1.RenewLockRequest{Name: "l", Token: first.GetToken()}); err != nil {
		t.Fatal(err)
	}
	r.clock.Add(int64(59 * time.Second))
	_, err = acquire()
	codeIs(t, err, connect.CodeAborted)
	r.clock.Add(int64(2 * time.Second))
	second, err := acquire()
	if err != nil || second.GetToken() <= first.GetToken() {
		t.Fatalf("after expiry: got %v, %v, expected a token above %d", second, err, first.GetToken())
	}
	_, err = r.locks.RenewLock(ctx, &adminv1.RenewLockRequest{Name: "l", Token: first.GetToken(), Ttl: durationpb.New(time.Minute)})
	codeIs(t, err, connect.CodeAborted)
	_, err = r.locks.ReleaseLock(ctx, &adminv1.ReleaseLockRequest{Name: "l", Token: first.GetToken()})
	codeIs(t, err, connect.CodeAborted)
	list, err := r.locks.ListLocks(ctx, &adminv1.ListLocksRequest{})
	if err != nil || len(list.GetLocks()) != 1 || list.GetLocks()[0].GetHolder() != "ci" || list.GetLocks()[0].GetExpiresIn().AsDuration() > time.Minute {
		t.Errorf("got %v, %v", list, err)
	}
	if _, err := r.locks.ReleaseLock(ctx, &adminv1.ReleaseLockRequest{Name: "l", Token: second.GetToken()}); err != nil {
		t.Error(err)
	}
	if list, err := r.locks.ListLocks(ctx, &adminv1.ListLocksRequest{}); err != nil || len(list.GetLocks()) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestBadInputIsRefusedNamingTheField(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	long := strings.Repeat("x", 256)
	for want, call := range map[string]func() error{
		"page_size: got -1, expected 1 to 1000": func() error {
			_, err := r.repositories.ListRepositories(ctx, &adminv1.ListRepositoriesRequest{PageSize: -1})
			return err
		},
		"page_size: got 1001": func() error {
			_, err := r.locks.ListLocks(ctx, &adminv1.ListLocksRequest{PageSize: 1001})
			return err
		},
		"UPPER": func() error {
			_, err := r.repositories.ListTags(ctx, &adminv1.ListTagsRequest{Repository: "UPPER"})
			return err
		},
		"page_token": func() error {
			_, err := r.repositories.ListManifests(ctx, &adminv1.ListManifestsRequest{Repository: "a", PageToken: "x"})
			return err
		},
		"digest": func() error {
			_, err := r.repositories.RemoveManifest(ctx, &adminv1.RemoveManifestRequest{Repository: "a", Digest: "sha256:0"})
			return err
		},
		"-bad": func() error {
			_, err := r.repositories.RemoveTag(ctx, &adminv1.RemoveTagRequest{Repository: "a", Tag: "-bad"})
			return err
		},
		"name: got 0 bytes": func() error {
			_, err := r.locks.AcquireLock(ctx, &adminv1.AcquireLockRequest{Ttl: durationpb.New(time.Minute)})
			return err
		},
		"name: got 256 bytes": func() error {
			_, err := r.locks.AcquireLock(ctx, &adminv1.AcquireLockRequest{Name: long})
			return err
		},
		"expected printable text": func() error {
			_, err := r.locks.AcquireLock(ctx, &adminv1.AcquireLockRequest{Name: "a\x1b[2J", Ttl: durationpb.New(time.Minute)})
			return err
		},
		"ttl: got 0s, expected 1s to 24h": func() error {
			_, err := r.locks.AcquireLock(ctx, &adminv1.AcquireLockRequest{Name: "a"})
			return err
		},
		"ttl: got 25h": func() error {
			_, err := r.locks.AcquireLock(ctx, &adminv1.AcquireLockRequest{Name: "a", Ttl: durationpb.New(25 * time.Hour)})
			return err
		},
		"token: got 0": func() error {
			_, err := r.locks.ReleaseLock(ctx, &adminv1.ReleaseLockRequest{Name: "a"})
			return err
		},
	} {
		err := call()
		codeIs(t, err, connect.CodeInvalidArgument)
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, expected it to hold %q", err, want)
		}
	}
}

func TestPlainJSONOverHTTPIsEnough(t *testing.T) {
	r := newRig(t)
	res, err := r.http.Post("http://s/pontoon.admin.v1.StatusService/GetStatus", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var got struct{ Node struct{ ID string } }
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got.Node.ID != "n1" {
		t.Errorf("got status %d, %+v, %v", res.StatusCode, got, err)
	}
}

func TestARequestThatCameNotThroughTheSocketIsRefused(t *testing.T) {
	r := newRig(t)
	handler, err := New(Config{Ledger: r.ledger, Members: known{}, Membership: &r.crew, Trust: &r.crew, Collector: &r.gc, Backups: &r.saver})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler, ConnContext: ConnContext, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { _ = srv.Close(); <-served }()
	_, err = adminv1connect.NewLockServiceClient(http.DefaultClient, "http://"+l.Addr().String()).ListLocks(t.Context(), &adminv1.ListLocksRequest{})
	codeIs(t, err, connect.CodeUnauthenticated)
}

func TestAMessageBeyondTheBoundIsRefused(t *testing.T) {
	r := newRig(t)
	body := bytes.NewReader(append([]byte(`{"name":"`), bytes.Repeat([]byte("x"), requestBound+1)...))
	res, err := r.http.Post("http://s/pontoon.admin.v1.LockService/AcquireLock", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if text, _ := io.ReadAll(res.Body); res.StatusCode == http.StatusOK || !strings.Contains(string(text), "resource_exhausted") {
		t.Errorf("got status %d: %s", res.StatusCode, text)
	}
}

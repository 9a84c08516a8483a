package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/blobstest"
)

// found names the findings, grave ones with an exclamation mark.
func found(t *testing.T, s *Store) string {
	t.Helper()
	all, err := s.Inspect(t.Context(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range all {
		if f.Grave {
			f.Name += "!"
		}
		names = append(names, f.Name)
		if f.Text == "" {
			t.Errorf("%s says nothing", f.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestAPlainBucketHasNothingToFind(t *testing.T) {
	if got := found(t, open(t, against(blobstest.StartS3(t), Config{}))); got != "" {
		t.Errorf("got %s", got)
	}
}

// Against the real server, with its own versions and locks.
func TestVersionsAndLocksAreFound(t *testing.T) {
	t.Setenv("VGW_VERSIONING_DIR", t.TempDir())
	server := blobstest.StartS3(t)
	s := open(t, against(server, Config{}))
	if got := found(t, s); got != "" {
		t.Errorf("before: got %s", got)
	}
	version := func(status types.BucketVersioningStatus) {
		t.Helper()
		_, err := s.client.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: &server.Bucket,
			VersioningConfiguration: &types.VersioningConfiguration{Status: status}})
		if err != nil {
			t.Fatal(err)
		}
	}
	version(types.BucketVersioningStatusSuspended)
	if got := found(t, s); got != "versioning" {
		t.Errorf("suspended: got %s", got)
	}
	version(types.BucketVersioningStatusEnabled)
	if got := found(t, s); got != "versioning" {
		t.Errorf("enabled: got %s", got)
	}
	_, err := s.client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("locked"), ObjectLockEnabledForBucket: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	c := against(server, Config{})
	c.Bucket = "locked"
	locked := open(t, c)
	if got := found(t, locked); got != "versioning objectlock" {
		t.Errorf("object lock: got %s", got)
	}
	_, err = s.client.PutObjectLockConfiguration(t.Context(), &s3.PutObjectLockConfigurationInput{Bucket: aws.String("locked"),
		ObjectLockConfiguration: &types.ObjectLockConfiguration{ObjectLockEnabled: types.ObjectLockEnabledEnabled,
			Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{Mode: types.ObjectLockRetentionModeGovernance, Days: aws.Int32(30)}}}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := locked.Inspect(t.Context(), time.Hour)
	if err != nil || len(all) != 2 || !strings.Contains(all[1].Text, "GOVERNANCE, 30 days") {
		t.Errorf("default retention: got %+v, %v", all, err)
	}
}

// rules answers a lifecycle configuration as S3 does, which versitygw has none of.
func rules(xml string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !r.URL.Query().Has("lifecycle") {
			return false
		}
		w.Header().Set("Content-Type", "application/xml")
		_, _ = io.WriteString(w, `<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`+xml+`</LifecycleConfiguration>`)
		return true
	}
}

func TestLifecycleRulesThatEatLayersOrUploadsAreFound(t *testing.T) {
	s, b := openBetween(t, Config{RootDirectory: "/registry/"})
	const begin, end = "<Rule><ID>r</ID><Status>Enabled</Status>", "</Rule>"
	const all, days = "<Filter><Prefix></Prefix></Filter>", "<Expiration><Days>30</Days></Expiration>"
	abort := func(days string) string {
		return "<AbortIncompleteMultipartUpload><DaysAfterInitiation>" + days + "</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
	}
	for name, test := range map[string]struct{ rules, want string }{
		"everything expires":         {begin + all + days + end, "expiration!"},
		"by date":                    {begin + all + "<Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration>" + end, "expiration!"},
		"no filter at all":           {begin + "<Prefix></Prefix>" + days + end, "expiration!"},
		"our prefix":                 {begin + "<Filter><Prefix>registry/</Prefix></Filter>" + days + end, "expiration!"},
		"below our prefix":           {begin + "<Filter><Prefix>registry/abc/</Prefix></Filter>" + days + end, "expiration!"},
		"only backups":               {begin + "<Filter><Prefix>registry/pontoon-backup/</Prefix></Filter>" + days + abort("1") + end, "backups!"},
		"of others beside us":        {begin + "<Filter><Prefix>registry/old-logs/</Prefix></Filter>" + days + abort("1") + end, ""},
		"old form":                   {begin + "<Prefix>regis</Prefix>" + days + end, "expiration!"},
		"another prefix":             {begin + "<Filter><Prefix>logs/</Prefix></Filter>" + days + abort("1") + end, ""},
		"disabled":                   {"<Rule><ID>r</ID><Status>Disabled</Status>" + all + days + abort("1") + end, ""},
		"only with a tag":            {begin + "<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>" + days + end, ""},
		"prefix and tag":             {begin + "<Filter><And><Prefix></Prefix><Tag><Key>k</Key><Value>v</Value></Tag></And></Filter>" + days + end, ""},
		"prefix and size":            {begin + "<Filter><And><Prefix>registry/</Prefix><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter>" + days + end, "expiration!"},
		"aborts under clients":       {begin + all + abort("1") + end, "uploads!"},
		"aborts what was left":       {begin + all + abort("2") + end, ""},
		"hidden versions":            {begin + all + "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>" + end, ""},
		"out of reach":               {begin + all + "<Transition><Days>9</Days><StorageClass>GLACIER</StorageClass></Transition>" + end, "transition!"},
		"cheaper, and within reach":  {begin + all + "<Transition><Days>9</Days><StorageClass>STANDARD_IA</StorageClass></Transition>" + end, ""},
		"two rules, three findings!": {begin + all + days + abort("1") + end + begin + all + "<Transition><Days>9</Days><StorageClass>DEEP_ARCHIVE</StorageClass></Transition>" + end, "uploads! expiration! transition!"},
	} {
		b.set(rules(test.rules))
		if got := found(t, s); got != test.want {
			t.Errorf("%s: got %q, expected %q", name, got, test.want)
		}
	}
}

func TestServersThatKnowNoSettingsAreFineAndSilentOnesAreSaid(t *testing.T) {
	s, b := openBetween(t, Config{MaxAttempts: 1})
	asks := func(r *http.Request) bool {
		q := r.URL.Query()
		return q.Has("lifecycle") || q.Has("versioning") || q.Has("object-lock")
	}
	answer := func(status int, code string) {
		b.set(func(w http.ResponseWriter, r *http.Request) bool {
			if asks(r) {
				refuse(w, status, code)
			}
			return asks(r)
		})
	}
	for code, status := range map[string]int{"NotImplemented": 501, "MethodNotAllowed": 405, "NoSuchLifecycleConfiguration": 404, "SomethingElse": 404} {
		answer(status, code)
		if got := found(t, s); got != "" {
			t.Errorf("%s: got %s", code, got)
		}
	}
	answer(http.StatusForbidden, "AccessDenied")
	all, err := s.Inspect(t.Context(), time.Hour)
	if err != nil || len(all) != 3 {
		t.Fatalf("denied: got %+v, %v", all, err)
	}
	for i, action := range []string{"s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:GetLifecycleConfiguration"} {
		if all[i].Name != "unread" || all[i].Grave || !strings.Contains(all[i].Text, "access denied): allow "+action) {
			t.Errorf("denied: got %+v", all[i])
		}
	}
	answer(http.StatusBadRequest, "InvalidArgument")
	if got := found(t, s); got != "unread unread unread" {
		t.Errorf("not understood: got %s", got)
	}
	answer(http.StatusServiceUnavailable, "SlowDown")
	if all, err := s.Inspect(t.Context(), time.Hour); !errors.Is(err, blobs.ErrUnavailable) || all != nil {
		t.Errorf("no answer: got %v, %v", all, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.set(nil)
	if _, err := s.Inspect(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

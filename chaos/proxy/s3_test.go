package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

const bucket = "layers"

// gateway is a versitygw that runs, with a bucket; its address.
func gateway(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("versitygw")
	if err != nil {
		if program, err = filepath.Abs("../../bin/versitygw"); err == nil {
			_, err = os.Stat(program)
		}
	}
	if err != nil {
		t.Fatalf("versitygw is missing: make tools installs it: %v", err)
	}
	root, addr := t.TempDir(), held(t)
	if err := os.Mkdir(filepath.Join(root, bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "--port", addr, "--access", "chaos", "--secret", "chaos-secret", "--quiet", "--keep-alive", "posix", root)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // and waited for
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("versitygw said: %s", log.String())
		}
	})
	until(t, "versitygw to listen", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

// world is a layer before a real server, a client of node "a", and one that passes by the layer.
type world struct {
	t      *testing.T
	s      *S3
	direct *s3.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	addr := gateway(t)
	s := NewS3(S3Config{Target: addr, Seed: 1})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t: t, s: s, direct: client(t, addr)}
}

// client never repeats a call.
func client(t *testing.T, addr string) *s3.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + addr), UsePathStyle: true, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider("chaos", "chaos-secret", ""),
		HTTPClient:  &http.Client{Transport: transport},

		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	})
}

func (w *world) client(node string) *s3.Client {
	w.t.Helper()
	addr, err := w.s.Door(node)
	if err != nil {
		w.t.Fatal(err)
	}
	return client(w.t, addr)
}

func (w *world) arm(rules ...Rule) func() {
	w.t.Helper()
	lift, err := w.s.Arm(rules...)
	if err != nil {
		w.t.Fatal(err)
	}
	return lift
}

func (w *world) put(c *s3.Client, key, body string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: &key, Body: strings.NewReader(body), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c})
	return err
}

// get reads an object: what came of it, and how that ended.
func (w *world) get(c *s3.Client, key string) (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: &key})
	if err != nil {
		return "", err
	}
	defer out.Body.Close()
	body, err := io.ReadAll(out.Body)
	return string(body), err
}

func (w *world) list(c *s3.Client) (keys []string) {
	w.t.Helper()
	out, err := c.ListObjectsV2(w.t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(bucket)})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range out.Contents {
		keys = append(keys, *o.Key)
	}
	return keys
}

// has says what the server itself holds under a key; "" when there is nothing.
func (w *world) has(key string) string {
	w.t.Helper()
	body, err := w.get(w.direct, key)
	if err != nil && code(err) != "NoSuchKey" {
		w.t.Fatal(err)
	}
	return body
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func (w *world) counted(name string, want Count) {
	w.t.Helper()
	if got := w.s.Counts()[name]; got != want {
		w.t.Errorf("%s: counted %+v, want %+v", name, got, want)
	}
}

// TestALayerWithoutRulesChangesNothing makes every call that a registry makes, signed, through the layer, and finds each
// under its name.
func TestALayerWithoutRulesChangesNothing(t *testing.T) {
	w := newWorld(t)
	c := w.client("a")
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	odd := "epoch/a b+c%2Fü/attempt.1"
	must(c.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String(bucket)}))
	if err := w.put(c, odd, "content"); err != nil {
		t.Fatal(err)
	}
	must(c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: &odd}))
	if body, err := w.get(c, odd); err != nil || body != "content" {
		t.Errorf("got %q, %v", body, err)
	}
	if keys := w.list(c); len(keys) != 1 || keys[0] != odd {
		t.Errorf("listed %q", keys)
	}
	big := strings.Repeat("0123456789abcdef", 6<<16) // of a size that is sent with Expect: 100-continue
	made, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String(bucket), Key: aws.String("multi")})
	if err != nil {
		t.Fatal(err)
	}
	part, err := c.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: aws.String(bucket), Key: aws.String("multi"), UploadId: made.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader(big),
	})
	if err != nil {
		t.Fatal(err)
	}
	must(c.ListParts(ctx, &s3.ListPartsInput{Bucket: aws.String(bucket), Key: aws.String("multi"), UploadId: made.UploadId}))
	must(c.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: aws.String(bucket)}))
	must(c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: aws.String(bucket), Key: aws.String("multi"), UploadId: made.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: part.ETag, PartNumber: aws.Int32(1)}}},
	}))
	if body, err := w.get(c, "multi"); err != nil || body != big {
		t.Errorf("got %d bytes of %d, %v", len(body), len(big), err)
	}
	gone, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String(bucket), Key: aws.String("gone")})
	if err != nil {
		t.Fatal(err)
	}
	must(c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: aws.String(bucket), Key: aws.String("gone"), UploadId: gone.UploadId}))
	must(c.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: aws.String(bucket)}))
	must(c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(bucket), Key: &odd}))
	must(c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: aws.String(bucket), Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("multi")}}}}))
	if keys := w.list(c); len(keys) != 0 {
		t.Errorf("left %q", keys)
	}
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String("once"), Body: strings.NewReader("x"), IfNoneMatch: aws.String("*")})
	must(nil, err)
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String("once"), Body: strings.NewReader("y"), IfNoneMatch: aws.String("*")})
	if code(err) != "PreconditionFailed" {
		t.Errorf("a condition that does not hold: %v", err)
	}
	want := map[Operation]int64{
		HeadBucket: 1, PutObject: 3, HeadObject: 1, GetObject: 2, ListObjectsV2: 2, CreateMultipartUpload: 2, UploadPart: 1, ListParts: 1,
		ListMultipartUploads: 1, CompleteMultipartUpload: 1, AbortMultipartUpload: 1, Other: 1, DeleteObject: 1, DeleteObjects: 1,
	}
	if got := w.s.Requests(); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestARefusalIsS3sOwn(t *testing.T) {
	w := newWorld(t)
	c := w.client("a")
	lift := w.arm(Rule{Name: "slow down", Operations: []Operation{PutObject, HeadObject}, Effect: Effect{Do: Refuse}},
		Rule{Name: "expired", Operations: []Operation{GetObject}, Effect: Effect{Do: Refuse, Code: "ExpiredToken"}})
	if err := w.put(c, "k", strings.Repeat("x", 3<<20)); code(err) != "SlowDown" { // larger than the server reads after it has answered
		t.Errorf("put: %v", err)
	}
	var status interface{ HTTPStatusCode() int }
	if _, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: aws.String("k")}); !errors.As(err, &status) || status.HTTPStatusCode() != 503 {
		t.Errorf("head: %v", err)
	}
	if _, err := w.get(c, "k"); code(err) != "ExpiredToken" {
		t.Errorf("get: %v", err)
	}
	lift()
	if err := w.put(c, "k", "x"); err != nil {
		t.Errorf("after the rule: %v", err)
	}
	w.counted("slow down", Count{Met: 2, Fired: 2})
}

func TestRulesChoose(t *testing.T) {
	w := newWorld(t)
	a, b := w.client("a"), w.client("b")
	lift := w.arm(Rule{Name: "chosen", Node: "a", Method: http.MethodPut, Keys: regexp.MustCompile(`^epoch/`), After: 1, Times: 2, Effect: Effect{Do: Refuse}})
	var got []bool
	for _, do := range []func() error{
		func() error { return w.put(b, "epoch/1", "x") },
		func() error { return w.put(a, "other/1", "x") },
		func() error { _, err := w.get(a, "epoch/1"); return err },
		func() error { return w.put(a, "epoch/2", "x") }, // let pass first
		func() error { return w.put(a, "epoch/3", "x") },
		func() error { return w.put(a, "epoch/4", "x") },
		func() error { return w.put(a, "epoch/5", "x") }, // two were met
	} {
		got = append(got, do() != nil)
	}
	if want := []bool{false, false, false, false, true, true, false}; !slices.Equal(got, want) {
		t.Errorf("refused %v, want %v", got, want)
	}
	w.counted("chosen", Count{Met: 4, Fired: 2})
	lift()

	chosen := func(seed uint64) (got []bool) {
		s := NewS3(S3Config{Target: "127.0.0.1:1", Seed: seed})
		defer s.Close()
		if _, err := s.Arm(Rule{Name: "half", Chance: 0.5, Effect: Effect{Do: Refuse}}); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			got = append(got, s.pick(&request{Request: &http.Request{}}) != nil)
		}
		return got
	}
	first := chosen(7)
	if n := len(slices.DeleteFunc(slices.Clone(first), func(yes bool) bool { return !yes })); n < 25 || n > 75 {
		t.Errorf("of 100 requests %d were met by a chance of a half", n)
	}
	if !slices.Equal(first, chosen(7)) {
		t.Error("the same seed gave another choice")
	}
	if slices.Equal(first, chosen(8)) {
		t.Error("another seed gave the same choice")
	}
}

func TestAnAnswerIsLostAndTheEffectStays(t *testing.T) {
	w := newWorld(t)
	w.arm(Rule{Name: "lost", Method: http.MethodPut, Effect: Effect{Do: Lose}})
	if err := w.put(w.client("a"), "k", "content"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("put: %v", err)
	}
	if got := w.has("k"); got != "content" {
		t.Errorf("the server holds %q", got)
	}
}

func TestAHangEndsWithTheClientWithItsTimeAndWithItsRule(t *testing.T) {
	w := newWorld(t)
	c := w.client("a")
	lift := w.arm(Rule{Name: "for ever", Keys: regexp.MustCompile("^ever"), Effect: Effect{Do: Hang}},
		Rule{Name: "for a while", Keys: regexp.MustCompile("^while"), Effect: Effect{Do: Hang, For: silence}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gone := make(chan error, 1)
	go func() {
		_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String("ever"), Body: strings.NewReader(strings.Repeat("x", 1<<20))})
		gone <- err
	}()
	until(t, "the request", func() bool { return w.s.Counts()["for ever"].Fired == 1 })
	select {
	case err := <-gone:
		t.Errorf("a hang ended by itself: %v", err)
	case <-time.After(silence):
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("a hang: %v", err)
		}
	}
	began := time.Now()
	if err := w.put(c, "while", "x"); !errors.Is(err, syscall.ECONNRESET) || time.Since(began) < silence {
		t.Errorf("a hang of %v ended after %v: %v", silence, time.Since(began), err)
	}
	done := make(chan error, 1)
	go func() { done <- w.put(c, "ever", "x") }()
	until(t, "the request", func() bool { return w.s.Counts()["for ever"].Fired == 2 })
	lift()
	if err := <-done; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a hang whose rule was taken back: %v", err)
	}
	if w.has("ever") != "" || w.has("while") != "" {
		t.Error("what hung was done")
	}
}

func TestAWriteArrivesLate(t *testing.T) {
	w := newWorld(t)
	c := w.client("a")
	lift := w.arm(Rule{Name: "late", Keys: regexp.MustCompile("^late"), Effect: Effect{Do: Late, For: silence}},
		Rule{Name: "lost", Keys: regexp.MustCompile("^lost"), Effect: Effect{Do: LateLost, For: 3 * silence}})
	began := time.Now()
	if err := w.put(c, "late", "patient"); err != nil || time.Since(began) < silence {
		t.Errorf("a client that waits: %v after %v", err, time.Since(began))
	}
	late := "late"
	for err := error(nil); err == nil; { // who is answered before he could go away asks again
		if late += "2"; len(late) > 20 {
			t.Fatal("always answered before he could go away")
		}
		until(t, "what was asked before", func() bool { return w.s.Pending() == 0 })
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(late), Body: strings.NewReader("impatient")})
			gone <- err
		}()
		until(t, "the request to be kept", func() bool { return w.s.Pending() > 0 || len(gone) > 0 })
		cancel()
		if err = <-gone; err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("a client that does not wait: %v", err)
		}
	}
	began = time.Now()
	if err := w.put(c, "lost", "content"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("put: %v", err)
	}
	lift() // what is on its way arrives all the same
	if got := w.has("lost"); got != "" && time.Since(began) < 3*silence {
		t.Errorf("it was done at once: %q", got)
	}
	until(t, "all to arrive", func() bool { return w.s.Pending() == 0 })
	for key, want := range map[string]string{"late": "patient", late: "impatient", "lost": "content"} {
		if got := w.has(key); got != want {
			t.Errorf("%s holds %q, want %q", key, got, want)
		}
	}
}

// TestAWriteArrivesTwice: between the two another client has written, and it is undone.
func TestAWriteArrivesTwice(t *testing.T) {
	w := newWorld(t)
	w.arm(Rule{Name: "twice", Node: "a", Effect: Effect{Do: Twice, For: 3 * silence}})
	c := w.client("a")
	times := int64(0)
	for began := time.Now(); times == 0 || time.Since(began) >= 3*silence; times++ { // else the second may have come before the new
		if times == 20 {
			t.Fatal("always later than the second")
		}
		until(t, "the second", func() bool { return w.s.Pending() == 0 })
		began = time.Now()
		if err := w.put(c, "k", "old"); err != nil {
			t.Fatal(err)
		}
		if err := w.put(w.direct, "k", "new"); err != nil {
			t.Fatal(err)
		}
		if got := w.has("k"); got != "new" && time.Since(began) < 3*silence {
			t.Fatalf("the server holds %q", got)
		}
	}
	until(t, "the second", func() bool { return w.s.Pending() == 0 })
	if got := w.has("k"); got != "old" {
		t.Errorf("the server holds %q", got)
	}
	w.counted("twice", Count{Met: times, Fired: times})
}

// TestWhatCannotBeKeptIsLetPass: memory is bounded, and the count says that nothing was done.
func TestWhatCannotBeKeptIsLetPass(t *testing.T) {
	w := newWorld(t)
	w.arm(Rule{Name: "late", Operations: Writes(), Effect: Effect{Do: LateLost, For: time.Hour}})
	big := strings.Repeat("x", maxBody+1)
	if err := w.put(w.client("a"), "k", big); err != nil {
		t.Fatal(err)
	}
	if got := w.has("k"); got != big {
		t.Errorf("the server holds %d bytes", len(got))
	}
	w.counted("late", Count{Met: 1, TooBig: 1})
}

func TestCloseDropsWhatIsLate(t *testing.T) {
	w := newWorld(t)
	w.arm(Rule{Name: "late", Effect: Effect{Do: LateLost, For: time.Hour}})
	if err := w.put(w.client("a"), "k", "x"); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	w.counted("late", Count{Met: 1, Fired: 1, Dropped: 1})
	if _, err := w.s.Door("b"); err == nil {
		t.Error("a closed layer opened a door")
	}
}

func TestABodyIsTruncatedOrCorrupted(t *testing.T) {
	w := newWorld(t)
	c := w.client("a")
	content := strings.Repeat("0123456789abcdef", 10_000)
	for _, key := range []string{"cut", "bit", "bare"} {
		if err := w.put(c, key, content); err != nil {
			t.Fatal(err)
		}
	}
	w.arm(Rule{Name: "cut", Keys: regexp.MustCompile("^cut"), Effect: Effect{Do: Truncate}},
		Rule{Name: "bit", Keys: regexp.MustCompile("^bit"), Effect: Effect{Do: Corrupt}},
		Rule{Name: "bare", Keys: regexp.MustCompile("^bare"), Effect: Effect{Do: Corrupt, Bare: true}})
	if got, err := w.get(c, "cut"); !errors.Is(err, io.ErrUnexpectedEOF) || got != content[:len(content)/2] {
		t.Errorf("got %d bytes of %d, %v", len(got), len(content), err)
	}
	if _, err := w.get(c, "bit"); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("a wrong bit under a checksum: %v", err)
	}
	got, err := w.get(c, "bare")
	wrong := 0
	for i := range min(len(got), len(content)) {
		if got[i] != content[i] {
			wrong++
		}
	}
	if err != nil || len(got) != len(content) || wrong != 1 {
		t.Errorf("%d bytes of %d, %d wrong, %v", len(got), len(content), wrong, err)
	}
	if w.has("cut") != content || w.has("bit") != content || w.has("bare") != content {
		t.Error("the server's own was spoilt")
	}
}

func TestAListIsStale(t *testing.T) {
	w := newWorld(t)
	c := w.client("a")
	for _, key := range []string{"1", "2"} {
		if err := w.put(c, key, "x"); err != nil {
			t.Fatal(err)
		}
	}
	before := w.list(c)
	lift := w.arm(Rule{Name: "stale", Operations: Lists(), Effect: Effect{Do: Stale}})
	if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String(bucket), Key: aws.String("1")}); err != nil {
		t.Fatal(err)
	}
	if err := w.put(c, "3", "x"); err != nil {
		t.Fatal(err)
	}
	if got := w.list(w.client("b")); !slices.Equal(got, before) {
		t.Errorf("listed %q, want what was: %q", got, before)
	}
	// What nobody has asked before cannot be stale.
	out, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(bucket), Prefix: aws.String("3")})
	if err != nil || len(out.Contents) != 1 {
		t.Errorf("another list: %v, %v", out, err)
	}
	lift()
	if got := w.list(c); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("after the rule listed %q", got)
	}
}

func TestALagIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.arm(Rule{Name: "lag", Effect: Effect{Do: Lag, For: silence}})
	began := time.Now()
	if err := w.put(w.client("a"), "k", "x"); err != nil || time.Since(began) < silence {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// TestTheLayerStandsBehindALine: a node's way to the store is a line and a door, and the signature holds.
func TestTheLayerStandsBehindALine(t *testing.T) {
	w := newWorld(t)
	door, err := w.s.Door("a")
	if err != nil {
		t.Fatal(err)
	}
	l := openLine(t, door)
	c := client(t, l.Addr())
	if err := w.put(c, "k", "x"); err != nil {
		t.Fatal(err)
	}
	w.arm(Rule{Name: "lost", Effect: Effect{Do: Lose}})
	if err := w.put(c, "k", "y"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("put: %v", err)
	}
	if got := w.has("k"); got != "y" {
		t.Errorf("the server holds %q", got)
	}
}

func TestAnInvalidRuleIsNamed(t *testing.T) {
	for want, r := range map[string]Rule{
		"name":      {Effect: Effect{Do: Hang}},
		"chance":    {Name: "r", Chance: 1.5, Effect: Effect{Do: Hang}},
		"times":     {Name: "r", Times: -1, Effect: Effect{Do: Hang}},
		"does \"\"": {Name: "r"},
		"lasts":     {Name: "r", Effect: Effect{Do: Hang, For: -1}},
		"code":      {Name: "r", Effect: Effect{Do: Refuse, Code: "Nonsense"}},
	} {
		s := NewS3(S3Config{})
		if _, err := s.Arm(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

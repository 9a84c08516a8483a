package chaos

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// store is where the nodes of one cluster keep layers.
type store interface {
	// yaml is the block under storage: in a node's config, indented by two spaces.
	yaml() string
	String() string
}

// directory is a folder that all nodes share.
type directory struct{ root string }

func newDirectory(t testing.TB) *directory { return &directory{root: t.TempDir()} }

func (d *directory) String() string { return "directory" }

func (d *directory) yaml() string {
	return fmt.Sprintf("  filesystem:\n    rootdirectory: %s\n    shared: true\n", d.root)
}

// bucket is a bucket on an S3 server that the test started.
type bucket struct {
	endpoint string
	name     string
	server   *process
	client   *s3.Client
}

const (
	accessKey = "chaos"
	secretKey = "chaos-secret"
)

// newBucket starts versitygw over a temporary folder and makes one bucket on it.
func newBucket(t testing.TB) *bucket {
	t.Helper()
	root, logs, addr := t.TempDir(), scratch(t), freeAddr(t)
	b := &bucket{endpoint: "http://" + addr, name: "layers"}
	if err := os.Mkdir(filepath.Join(root, b.name), 0o755); err != nil {
		t.Fatal(err)
	}
	b.server = start(t, logs, "versitygw", nil, need(t, "versitygw"),
		"--port", addr, "--access", accessKey, "--secret", secretKey, "--quiet", "--keep-alive", "posix", root)
	b.client = s3.New(s3.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(b.endpoint),
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		HTTPClient:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	})
	eventually(t, 30*time.Second, "versitygw to answer", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := b.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.name})
		return err
	})
	return b
}

func (b *bucket) String() string { return "s3" }

func (b *bucket) yaml() string {
	return strings.Join([]string{
		"  s3:",
		"    region: us-east-1",
		"    regionendpoint: " + b.endpoint,
		"    bucket: " + b.name,
		"    accesskey: " + accessKey,
		"    secretkey: " + secretKey,
		"    forcepathstyle: true",
		"    secure: false",
		"",
	}, "\n")
}

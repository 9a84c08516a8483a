package main

import (
	"context"
	"fmt"
	"time"

	"github.com/pontoon-registry/pontoon/blobs"
	"github.com/pontoon-registry/pontoon/blobs/s3"
)

func (c S3Config) config() s3.Config {
	return s3.Config{
		Region: c.Region, RegionEndpoint: c.RegionEndpoint, Bucket: c.Bucket, RootDirectory: c.RootDirectory,
		AccessKey: c.AccessKey, SecretKey: c.SecretKey, SessionToken: c.SessionToken,
		ForcePathStyle: c.ForcePathStyle, Insecure: !c.Secure, SkipVerify: c.SkipVerify, CAFile: c.CAFile, Proxy: c.Proxy,
		Encrypt: c.Encrypt, KeyID: c.KeyID, StorageClass: c.StorageClass, EqualParts: c.EqualParts,
		Checksums: c.Checksums, Memory: c.Memory, MaxCalls: int(c.MaxCalls), MaxAttempts: int(c.MaxAttempts),
		CallTimeout: c.CallTimeout, ReadTimeout: c.ReadTimeout,
	}
}

// openS3 puts the decorators around the bucket in the order that blobs argues for (B5).
func openS3(ctx context.Context, c S3Config, watch storageMetrics) (*store, error) {
	config := c.config()
	config.Repeated = func() { watch.Repeated("call") }
	s, err := s3.Open(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open storage.s3: %w", err)
	}
	limited := blobs.Limit(blobs.Meter(s, watch), config.MaxCalls, storeWait, watch)
	watch.Opened(false)
	breaker := blobs.NewBreaker(limited, s.Probe, watch)
	return &store{
		blobs: blobs.Retry(breaker, watch), objects: s, name: storeName, where: "s3 " + c.RegionEndpoint + "/" + c.Bucket,
		ready: breaker.Check, check: s.Check, close: s.Close, inspect: inspectBucket(s),
	}, nil
}

// inspectBucket reads the settings of a bucket.
func inspectBucket(s *s3.Store) func(context.Context, time.Duration) ([]finding, error) {
	return func(ctx context.Context, uploads time.Duration) (all []finding, err error) {
		found, err := s.Inspect(ctx, uploads)
		for _, f := range found {
			all = append(all, finding{f.Name, f.Grave, f.Text})
		}
		return all, err
	}
}

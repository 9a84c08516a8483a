package main

import (
	"context"

	"github.com/pontoon-registry/pontoon/blobs/s3"
)

func (c S3Config) config() s3.Config {
	return s3.Config{
		Region: c.Region, RegionEndpoint: c.RegionEndpoint, Bucket: c.Bucket, RootDirectory: c.RootDirectory,
		AccessKey: c.AccessKey, SecretKey: c.SecretKey, SessionToken: c.SessionToken,
		ForcePathStyle: c.ForcePathStyle, Insecure: !c.Secure, SkipVerify: c.SkipVerify, CAFile: c.CAFile, Proxy: c.Proxy,
		Encrypt: c.Encrypt, KeyID: c.KeyID, StorageClass: c.StorageClass, EqualParts: c.EqualParts,
		Checksums: c.Checksums, Memory: c.Memory, MaxCalls: int(c.MaxCalls),
	}
}

func openS3(ctx context.Context, c S3Config) (*store, error) {
	s, err := s3.Open(ctx, c.config())
	if err != nil {
		return nil, err
	}
	return &store{blobs: s, objects: s, where: "s3 " + c.RegionEndpoint + "/" + c.Bucket, check: s.Check, close: s.Close}, nil
}

package s3

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pontoon-registry/pontoon/blobs"
)

// checksumName begins Part.Checksum.
const checksumName = "crc32c:"

// checksum answers a CRC-32C as S3 writes it, nil when none are sent.
func (s *Store) checksum(crc uint32) *string {
	if s.config.Checksums == "required" {
		return nil
	}
	return aws.String(base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc)))
}

// encryption answers the two fields that ask for SSE-S3 or SSE-KMS.
func (s *Store) encryption() (types.ServerSideEncryption, *string) {
	switch {
	case !s.config.Encrypt:
		return "", nil
	case s.config.KeyID == "":
		return types.ServerSideEncryptionAes256, nil
	}
	return types.ServerSideEncryptionAwsKms, &s.config.KeyID
}

// putPiece stores a content under a key that nobody else uses, so it may be
// repeated (B6), and answers its piece.
func (s *Store) putPiece(ctx context.Context, key string, c content) (blobs.Piece, error) {
	full, err := s.key(key)
	if err != nil {
		return blobs.Piece{}, err
	}
	sse, keyID := s.encryption()
	err = s.send(ctx, c, func(ctx context.Context, b *body) error {
		_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &s.config.Bucket, Key: full, Body: b, ContentLength: aws.Int64(c.size), ChecksumCRC32C: s.checksum(c.crc),
			ServerSideEncryption: sse, SSEKMSKeyId: keyID, StorageClass: types.StorageClass(s.config.StorageClass),
		})
		return err
	})
	if err != nil {
		return blobs.Piece{}, fmt.Errorf("put %s: %w", key, err)
	}
	return blobs.Piece{Key: key, Size: c.size, CRC32C: c.crc}, nil
}

// send makes a call whose body is c. What went wrong with reading the body comes first: it may be that a tail is gone.
// It is made again where an object that is part of the body was not what it should be: that may have been damaged on its way.
func (s *Store) send(ctx context.Context, c content, fn func(context.Context, *body) error) error {
	for reads := 1; ; reads++ {
		err := s.call(ctx, c.size, func(ctx context.Context) error {
			b := s.newBody(ctx, c)
			defer func() { _ = b.Close() }() // never fails
			err := fn(ctx, b)
			if err != nil && b.err != nil {
				return b.err
			}
			return err
		})
		if reads == tailReads || len(c.spilled) == 0 || !errors.Is(err, blobs.ErrCorrupt) {
			return err
		}
	}
}

// create begins a multipart upload. A repetition may leave one that nobody knows: the orphan sweep ends it.
func (s *Store) create(ctx context.Context, key string) (id string, err error) {
	full, err := s.key(key)
	if err != nil {
		return "", err
	}
	sse, keyID := s.encryption()
	input := &s3.CreateMultipartUploadInput{
		Bucket: &s.config.Bucket, Key: full,
		ServerSideEncryption: sse, SSEKMSKeyId: keyID, StorageClass: types.StorageClass(s.config.StorageClass),
	}
	if s.config.Checksums != "required" {
		input.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32c
	}
	err = s.call(ctx, 0, func(ctx context.Context) error {
		out, err := s.client.CreateMultipartUpload(ctx, input)
		if err == nil {
			id = aws.ToString(out.UploadId)
		}
		return err
	})
	if err == nil && id == "" {
		err = fmt.Errorf("the answer has no upload id: %w", blobs.ErrUnavailable)
	}
	if err != nil {
		return "", fmt.Errorf("create multipart upload %s: %w", key, err)
	}
	return id, nil
}

// uploadPart may be repeated: number and bytes are the same.
func (s *Store) uploadPart(ctx context.Context, key, id string, number int32, c content) (blobs.Part, error) {
	full, err := s.key(key)
	if err != nil {
		return blobs.Part{}, err
	}
	part := blobs.Part{Number: number, Size: c.size}
	sum := s.checksum(c.crc)
	if sum != nil {
		part.Checksum = checksumName + *sum
	}
	err = s.send(ctx, c, func(ctx context.Context, b *body) error {
		out, err := s.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &s.config.Bucket, Key: full, UploadId: &id, PartNumber: &number,
			Body: b, ContentLength: aws.Int64(c.size), ChecksumCRC32C: sum,
		})
		if err == nil {
			part.ETag = aws.ToString(out.ETag)
		}
		return err
	})
	if err != nil {
		return blobs.Part{}, fmt.Errorf("upload part %d of %s: %w", number, key, err)
	}
	return part, nil
}

// complete makes exactly the given parts the object. It may be repeated: see Finish.
func (s *Store) complete(ctx context.Context, key, id string, parts []blobs.Part) error {
	full, err := s.key(key)
	if err != nil {
		return err
	}
	list := make([]types.CompletedPart, len(parts))
	for n, p := range parts {
		list[n] = types.CompletedPart{PartNumber: aws.Int32(p.Number), ETag: aws.String(p.ETag)}
		if sum, ok := strings.CutPrefix(p.Checksum, checksumName); ok && s.config.Checksums != "required" {
			list[n].ChecksumCRC32C = &sum
		}
	}
	return s.call(ctx, partsSize(parts)/16, func(ctx context.Context) error { // some servers copy the bytes
		_, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.config.Bucket, Key: full, UploadId: &id,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: list},
		})
		return err
	})
}

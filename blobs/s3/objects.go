package s3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/pontoon-registry/pontoon/blobs"
)

const (
	// objectsPrefix keeps Objects apart from epochs: no epoch begins with an underscore.
	objectsPrefix = "_objects/"
	// maxObject bounds an object's body, in bytes.
	maxObject = 1 << 20
	// conflictRounds bounds the repetition of a put that met another one, which had no effect.
	conflictRounds = 5
)

// Get implements blobs.Objects.
func (s *Store) Get(ctx context.Context, name string) (body []byte, version string, err error) {
	if err := blobs.ValidateObjectName(name); err != nil {
		return nil, "", fmt.Errorf("get: %w", err)
	}
	err = s.call(ctx, maxObject, func(ctx context.Context) error {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.config.Bucket, Key: aws.String(s.prefix + objectsPrefix + name)})
		if err != nil {
			return err
		}
		defer func() { _ = out.Body.Close() }() // only read
		body, err = io.ReadAll(io.LimitReader(out.Body, maxObject+1))
		if err == nil && len(body) > maxObject {
			err = fmt.Errorf("over %d bytes: %w", maxObject, blobs.ErrCorrupt)
		}
		version = aws.ToString(out.ETag)
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", name, err)
	}
	return body, version, nil
}

// PutIfAbsent implements blobs.Objects by If-None-Match.
func (s *Store) PutIfAbsent(ctx context.Context, name string, body []byte) (string, error) {
	return s.putIf(ctx, name, body, blobs.ErrExists, func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") })
}

// PutIfMatch implements blobs.Objects by If-Match; the version is the ETag.
func (s *Store) PutIfMatch(ctx context.Context, name string, body []byte, version string) (string, error) {
	if version == "" {
		return "", fmt.Errorf("put %s: version must not be empty", name)
	}
	return s.putIf(ctx, name, body, blobs.ErrChanged, func(in *s3.PutObjectInput) { in.IfMatch = &version })
}

// putIf is never repeated after an answer that was lost: the first try may have
// had its effect, and the second would find that in its way. ErrUnavailable then; whoever cares reads.
func (s *Store) putIf(ctx context.Context, name string, body []byte, lost error, condition func(*s3.PutObjectInput)) (version string, err error) {
	if err := blobs.ValidateObject(name, body); err != nil {
		return "", fmt.Errorf("put: %w", err)
	}
	sse, keyID := s.encryption()
	for range conflictRounds {
		in := &s3.PutObjectInput{
			Bucket: &s.config.Bucket, Key: aws.String(s.prefix + objectsPrefix + name),
			Body: bytes.NewReader(body), ServerSideEncryption: sse, SSEKMSKeyId: keyID,
		}
		condition(in)
		err = s.call(ctx, int64(len(body)), func(ctx context.Context) error {
			out, err := s.client.PutObject(ctx, in, once)
			if err == nil {
				version = aws.ToString(out.ETag)
			}
			return err
		})
		if !hasStatus(err, http.StatusConflict) { // a conflict had no effect
			break
		}
	}
	if hasStatus(err, http.StatusPreconditionFailed) {
		err = lost
	}
	if err != nil {
		return "", fmt.Errorf("put %s: %w", name, err)
	}
	return version, nil
}

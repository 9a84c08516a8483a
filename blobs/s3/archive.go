package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Archive implements blobs.Archive beside the blobs of a bucket: its names are keys as they are, so that an operator finds them.
type Archive struct{ s *Store }

// Archive answers the archive in this bucket.
func (s *Store) Archive() *Archive { return &Archive{s} }

// Put implements blobs.Archive by If-None-Match. It is not repeated here: blobs.RetryArchive tells its own first try from another's.
func (a *Archive) Put(ctx context.Context, name string, body []byte) error {
	if err := blobs.ValidateArchived(name, body); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	s := a.s
	sse, keyID := s.encryption()
	var err error
	for range conflictRounds {
		err = s.call(ctx, int64(len(body)), func(ctx context.Context) error {
			_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
				Bucket: &s.config.Bucket, Key: aws.String(s.prefix + name), Body: bytes.NewReader(body), IfNoneMatch: aws.String("*"),
				ServerSideEncryption: sse, SSEKMSKeyId: keyID, StorageClass: types.StorageClass(s.config.StorageClass),
			}, once)
			return err
		})
		if !hasStatus(err, http.StatusConflict) { // a conflict had no effect
			break
		}
	}
	if hasStatus(err, http.StatusPreconditionFailed) {
		err = blobs.ErrExists
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// Get implements blobs.Archive.
func (a *Archive) Get(ctx context.Context, name string) (body []byte, err error) {
	if err := blobs.ValidateArchiveName(name); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	s := a.s
	err = s.call(ctx, blobs.MaxArchived, func(ctx context.Context) error {
		out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.config.Bucket, Key: aws.String(s.prefix + name)})
		if err != nil {
			return foreign404(err)
		}
		defer func() { _ = out.Body.Close() }() // only read
		body, err = io.ReadAll(io.LimitReader(out.Body, blobs.MaxArchived+1))
		if err == nil && len(body) > blobs.MaxArchived {
			err = fmt.Errorf("over %d bytes: %w", blobs.MaxArchived, blobs.ErrCorrupt)
		}
		if err != nil {
			return streamError(err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	return body, nil
}

// foreign404 keeps a 404 that is not S3's, such as a proxy's, from meaning that a backup is gone.
func foreign404(err error) error {
	if hasStatus(err, http.StatusNotFound) && !hasCode(err, "NoSuchKey") {
		return fmt.Errorf("%w: a 404 that is not S3's: %w", blobs.ErrUnavailable, err)
	}
	return err
}

// List implements blobs.Archive. Objects that no Put could have made are passed over.
func (a *Archive) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) {
		s := a.s
		input := &s3.ListObjectsV2Input{Bucket: &s.config.Bucket, Prefix: aws.String(s.prefix + prefix)}
		if after != "" {
			input.StartAfter = aws.String(s.prefix + after)
		}
		for pages := s3.NewListObjectsV2Paginator(s.client, input); pages.HasMorePages(); {
			var page *s3.ListObjectsV2Output
			err := s.call(ctx, 0, func(ctx context.Context) (err error) {
				page, err = pages.NextPage(ctx)
				return err
			})
			if err != nil {
				yield(blobs.Object{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			for _, o := range page.Contents {
				name, found := strings.CutPrefix(aws.ToString(o.Key), s.prefix)
				if !found || blobs.ValidateArchiveName(name) != nil {
					continue
				}
				if !yield(blobs.Object{Key: name, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)}, nil) {
					return
				}
			}
		}
	}
}

// Delete implements blobs.Archive, 1,000 names a call.
func (a *Archive) Delete(ctx context.Context, names ...string) error {
	var failed []error
	for batch := range slices.Chunk(names, deleteBatch) {
		var objects []types.ObjectIdentifier
		for _, name := range batch {
			if err := blobs.ValidateArchiveName(name); err != nil {
				failed = append(failed, fmt.Errorf("delete: %w", err))
				continue
			}
			objects = append(objects, types.ObjectIdentifier{Key: aws.String(a.s.prefix + name)})
		}
		failed = append(failed, a.s.deleteObjects(ctx, objects))
	}
	return errors.Join(failed...)
}

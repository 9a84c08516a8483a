package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pontoon-registry/pontoon/blobs"
)

const (
	// deleteBatch is S3's bound on keys in one DeleteObjects.
	deleteBatch = 1000
	// abortRounds bounds the repetition of an abort whose parts still arrive.
	abortRounds = 5
)

// Delete implements blobs.Store, 1,000 keys a call.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	var failed []error
	for batch := range slices.Chunk(keys, deleteBatch) {
		failed = append(failed, s.deleteBatch(ctx, batch))
	}
	return errors.Join(failed...)
}

func (s *Store) deleteBatch(ctx context.Context, keys []string) error {
	var failed []error
	var objects []types.ObjectIdentifier
	for _, key := range keys {
		full, err := s.key(key)
		if err != nil {
			failed = append(failed, fmt.Errorf("delete: %w", err))
			continue
		}
		objects = append(objects, types.ObjectIdentifier{Key: full})
	}
	failed = append(failed, s.deleteObjects(ctx, objects))
	return errors.Join(failed...)
}

// deleteObjects makes one call for at most deleteBatch full keys.
func (s *Store) deleteObjects(ctx context.Context, objects []types.ObjectIdentifier) error {
	if len(objects) == 0 {
		return nil
	}
	var failed []error
	err := s.call(ctx, 0, func(ctx context.Context) error {
		out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
			Bucket: &s.config.Bucket, Delete: &types.Delete{Objects: objects, Quiet: aws.Bool(true)},
		})
		if err != nil {
			return err
		}
		for _, e := range out.Errors {
			if code := aws.ToString(e.Code); code != "NoSuchKey" {
				failed = append(failed, refused(aws.ToString(e.Key), code, aws.ToString(e.Message)))
			}
		}
		return nil
	})
	if err != nil {
		failed = append(failed, fmt.Errorf("delete %d keys from %s: %w", len(objects), aws.ToString(objects[0].Key), err))
	}
	return errors.Join(failed...)
}

// refused is the error of one key in a batch.
func refused(key, code, message string) error {
	if kind := kindOf(code, 0); kind != nil {
		return fmt.Errorf("delete %s: %s: %s: %w", key, code, message, kind)
	}
	return fmt.Errorf("delete %s: %s: %s", key, code, message)
}

// List implements blobs.Store. Objects that are no blobs are passed over.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[blobs.Object, error] {
	return func(yield func(blobs.Object, error) bool) {
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
				key, ours := s.ours(o.Key)
				if ours && !yield(blobs.Object{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)}, nil) {
					return
				}
			}
		}
	}
}

// ours answers a blob's key without the prefix.
func (s *Store) ours(full *string) (string, bool) {
	key, found := strings.CutPrefix(aws.ToString(full), s.prefix)
	_, _, err := blobs.ParseKey(key)
	return key, found && err == nil
}

// ListMultiparts implements blobs.Store.
func (s *Store) ListMultiparts(ctx context.Context, prefix string) iter.Seq2[blobs.Multipart, error] {
	return func(yield func(blobs.Multipart, error) bool) {
		input := &s3.ListMultipartUploadsInput{Bucket: &s.config.Bucket, Prefix: aws.String(s.prefix + prefix)}
		for pages := s3.NewListMultipartUploadsPaginator(s.client, input); pages.HasMorePages(); {
			var page *s3.ListMultipartUploadsOutput
			err := s.call(ctx, 0, func(ctx context.Context) (err error) {
				page, err = pages.NextPage(ctx)
				return err
			})
			if err != nil {
				yield(blobs.Multipart{}, fmt.Errorf("list multipart uploads %q: %w", prefix, err))
				return
			}
			for _, u := range page.Uploads {
				key, ours := s.ours(u.Key)
				if ours && !yield(blobs.Multipart{Key: key, ID: aws.ToString(u.UploadId), Initiated: aws.ToTime(u.Initiated)}, nil) {
					return
				}
			}
		}
	}
}

// AbortMultipart implements blobs.Store. A part that arrives during an abort
// may stay ("AbortMultipartUpload" in the API reference), so it is repeated until none is listed.
func (s *Store) AbortMultipart(ctx context.Context, key, id string) error {
	full, err := s.key(key)
	if err != nil {
		return fmt.Errorf("abort: %w", err)
	}
	for range abortRounds {
		gone, err := s.abortOnce(ctx, full, id)
		if err != nil {
			return fmt.Errorf("abort %s: %w", key, err)
		}
		if gone {
			return nil
		}
	}
	return fmt.Errorf("abort %s: parts still arrive: %w", key, blobs.ErrUnavailable)
}

func (s *Store) abortOnce(ctx context.Context, full *string, id string) (gone bool, err error) {
	err = s.call(ctx, 0, func(ctx context.Context) error {
		_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.config.Bucket, Key: full, UploadId: &id})
		return err
	})
	if err != nil && !hasCode(err, "NoSuchUpload") {
		return false, err
	}
	var parts int
	err = s.call(ctx, 0, func(ctx context.Context) error {
		out, err := s.client.ListParts(ctx, &s3.ListPartsInput{Bucket: &s.config.Bucket, Key: full, UploadId: &id})
		if err == nil {
			parts = len(out.Parts)
		}
		return err
	})
	if hasCode(err, "NoSuchUpload") {
		return true, nil
	}
	return err == nil && parts == 0, err
}

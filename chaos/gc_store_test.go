package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// What the bucket holds beside layers.
const (
	objectsPrefix = "_objects/"
	backupPrefix  = "pontoon-backup/"
)

// keys lists the bucket: key → size. Of what lies beside the layers nothing.
func (b *bucket) keys(ctx context.Context) (map[string]int64, error) {
	keys := map[string]int64{}
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the bucket: %w", err)
		}
		for _, o := range page.Contents {
			if !strings.HasPrefix(*o.Key, objectsPrefix) && !strings.HasPrefix(*o.Key, backupPrefix) {
				keys[*o.Key] = *o.Size
			}
		}
	}
	return keys, nil
}

// multiparts counts the multipart uploads that are open.
func (b *bucket) multiparts(ctx context.Context) (open int, err error) {
	pages := s3.NewListMultipartUploadsPaginator(b.client, &s3.ListMultipartUploadsInput{Bucket: &b.name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return 0, fmt.Errorf("list multipart uploads: %w", err)
		}
		open += len(page.Uploads)
	}
	return open, nil
}

// digests reads the whole bucket: digest → how many keys hold it. Keys say nothing about what is under them, so only the
// bytes can tell.
func (b *bucket) digests(ctx context.Context) (map[string]int, error) {
	keys, err := b.keys(ctx)
	if err != nil {
		return nil, err
	}
	held := map[string]int{}
	for key := range keys {
		content, err := b.read(ctx, key)
		if err != nil {
			return nil, err
		}
		held[digestOf(content)]++
	}
	return held, nil
}

// holds says what is wrong unless the bucket holds exactly the needed blobs, each once, and no half an upload.
func (b *bucket) holds(ctx context.Context, needed map[string]int64) error {
	held, err := b.digests(ctx)
	if err != nil {
		return err
	}
	open, err := b.multiparts(ctx)
	if err != nil {
		return err
	}
	var missing, spare []string
	for digest := range needed {
		if held[digest] == 0 {
			missing = append(missing, digest)
		}
	}
	for digest, keys := range held {
		if _, wanted := needed[digest]; !wanted || keys > 1 {
			spare = append(spare, fmt.Sprintf("%s (%d keys)", digest, keys))
		}
	}
	var errs []error
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("lost: %d of %d needed blobs are not in the bucket: %v", len(missing), len(needed), missing))
	}
	if len(spare) > 0 || open > 0 {
		errs = append(errs, fmt.Errorf("left over: %d blobs of %d, such as %v, and %d multipart uploads", len(spare), len(held), head(spare, 3), open))
	}
	return errors.Join(errs...)
}

func (b *bucket) read(ctx context.Context, key string) ([]byte, error) {
	object, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	defer object.Body.Close()
	content, err := io.ReadAll(object.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return content, nil
}

// lose removes the one layer of a size from the bucket, behind the registry's back.
func (b *bucket) lose(ctx context.Context, size int64) error {
	keys, err := b.keys(ctx)
	if err != nil {
		return err
	}
	for key, has := range keys {
		if has != size {
			continue
		}
		if _, err = b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: &key}); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
		return nil
	}
	return fmt.Errorf("no layer in the bucket has %d bytes", size)
}

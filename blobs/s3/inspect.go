package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/pontoon-registry/pontoon/blobs"
)

// Finding is something about the bucket's settings that stands against what a registry does with it.
type Finding struct {
	// Name is short and never changes: versioning, objectlock, expiration, uploads, transition, backups, unread.
	Name string
	// Grave: layers, uploads or backups that are needed may be lost.
	Grave bool
	// Text says what it is and what to do.
	Text string
}

// Inspect reads the bucket's settings, and changes nothing. uploads is how long an upload may rest before it
// expires. A server that knows no such settings has nothing to find; one that refuses to show them is a finding, and so
// is one whose answer nobody understands. blobs.ErrUnavailable: nobody answered.
func (s *Store) Inspect(ctx context.Context, uploads time.Duration) ([]Finding, error) {
	var all []Finding
	for _, look := range []struct {
		setting, action string
		at              func(context.Context) ([]Finding, error)
	}{
		{"versioning", "s3:GetBucketVersioning", s.inspectVersioning},
		{"object lock", "s3:GetBucketObjectLockConfiguration", s.inspectLock},
		{"lifecycle rules", "s3:GetLifecycleConfiguration", func(ctx context.Context) ([]Finding, error) { return s.inspectRules(ctx, uploads) }},
	} {
		found, err := look.at(ctx)
		switch {
		case err == nil || unset(err):
			all = append(all, found...)
		case errors.Is(err, blobs.ErrUnavailable) || ctx.Err() != nil:
			return nil, fmt.Errorf("inspect bucket %s: %s: %w", s.config.Bucket, look.setting, err)
		case hasStatus(err, http.StatusForbidden):
			all = append(all, Finding{Name: "unread", Text: fmt.Sprintf("the bucket's %s could not be read (access denied): "+
				"allow %s, or look yourself that it is neither versioned nor expires objects or uploads", look.setting, look.action)})
		default:
			all = append(all, Finding{Name: "unread", Text: fmt.Sprintf("the bucket's %s could not be read: %v", look.setting, err)})
		}
	}
	return all, nil
}

// unset says that the bucket has no such setting, or the server knows none.
func unset(err error) bool {
	code, status := codeOf(err)
	return slices.Contains([]string{"NoSuchLifecycleConfiguration", "ObjectLockConfigurationNotFoundError", "NotImplemented", "MethodNotAllowed",
		"UnsupportedOperation", "XNotImplemented"}, code) || status == http.StatusNotImplemented || status == http.StatusMethodNotAllowed ||
		status == http.StatusNotFound && code != "NoSuchBucket"
}

func (s *Store) inspectVersioning(ctx context.Context) (found []Finding, err error) {
	err = s.call(ctx, 0, func(ctx context.Context) error {
		out, err := s.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &s.config.Bucket})
		if err != nil {
			return err
		}
		switch out.Status {
		case types.BucketVersioningStatusEnabled:
			found = []Finding{{Name: "versioning", Text: "the bucket keeps versions, so what is deleted from it only hides: no space comes back. " +
				"Suspend versioning, or add a lifecycle rule with NoncurrentVersionExpiration and ExpiredObjectDeleteMarker"}}
		case types.BucketVersioningStatusSuspended:
			found = []Finding{{Name: "versioning", Text: "the bucket kept versions once, and objects from that time only hide when they are deleted. " +
				"Add a lifecycle rule with NoncurrentVersionExpiration and ExpiredObjectDeleteMarker"}}
		}
		return nil
	})
	return found, err
}

func (s *Store) inspectLock(ctx context.Context) (found []Finding, err error) {
	err = s.call(ctx, 0, func(ctx context.Context) error {
		out, err := s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &s.config.Bucket})
		if err != nil {
			return err
		}
		lock := out.ObjectLockConfiguration
		if lock == nil || lock.ObjectLockEnabled != types.ObjectLockEnabledEnabled {
			return nil
		}
		text := "the bucket has object lock: objects that are locked stay, and cost, until their retention ends. Use a bucket without it"
		if lock.Rule != nil && lock.Rule.DefaultRetention != nil {
			r := lock.Rule.DefaultRetention
			text = fmt.Sprintf("the bucket locks every object (%s, %d days, %d years): nothing that is deleted gives its space back before. "+
				"Remove the default retention, or use a bucket without object lock", r.Mode, aws.ToInt32(r.Days), aws.ToInt32(r.Years))
		}
		found = []Finding{{Name: "objectlock", Text: text}}
		return nil
	})
	return found, err
}

func (s *Store) inspectRules(ctx context.Context, uploads time.Duration) (found []Finding, err error) {
	err = s.call(ctx, 0, func(ctx context.Context) error {
		out, err := s.client.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &s.config.Bucket})
		if err != nil {
			return err
		}
		for _, rule := range out.Rules {
			found = append(found, s.judgeRule(rule, uploads)...)
		}
		return nil
	})
	return found, err
}

// judgeRule says what a lifecycle rule does to us: objects that it expires or moves out of reach, and uploads that it
// aborts while somebody may go on with them. An upload lives from its last step on, so one that is aborted as long after
// its beginning as it may rest is aborted under a client that rested once.
func (s *Store) judgeRule(rule types.LifecycleRule, uploads time.Duration) (found []Finding) {
	prefix, tagged := scope(rule)
	overlaps := strings.HasPrefix(prefix, s.prefix) || strings.HasPrefix(s.prefix, prefix)
	if rule.Status != types.ExpirationStatusEnabled || !overlaps {
		return nil
	}
	name := fmt.Sprintf("lifecycle rule %q (prefix %q)", aws.ToString(rule.ID), prefix)
	grave := func(finding, format string, args ...any) {
		found = append(found, Finding{Name: finding, Grave: true, Text: name + " " + fmt.Sprintf(format, args...)})
	}
	expires := !tagged && rule.Expiration != nil && (rule.Expiration.Days != nil || rule.Expiration.Date != nil)
	if below := strings.TrimPrefix(prefix, s.prefix); !s.mayBeLayers(prefix) {
		if expires && strings.HasPrefix(below, smallObjects) {
			grave("backups", "deletes backups by age, and the registry still counts on them: a restore finds none, or pieces. "+
				"Remove it: backup.keep and backup.keepfor bound them")
		}
		return found
	}
	if a := rule.AbortIncompleteMultipartUpload; a != nil { // of the whole prefix: uploads have no tags
		if days := aws.ToInt32(a.DaysAfterInitiation); time.Duration(days)*24*time.Hour <= uploads {
			grave("uploads", "aborts uploads %d days after they began, but one may rest for %v (gc.uploads) and go on: pushes fail. "+
				"Let it wait for 7 days, or remove it: expired uploads are aborted by the registry", days, uploads)
		}
	}
	if tagged {
		return found // our objects have no tags
	}
	if expires {
		grave("expiration", "deletes objects by age: layers that are in use will be LOST. "+
			"Remove it, or limit it to a prefix outside of the registry's %q", s.prefix)
	}
	for _, t := range rule.Transitions {
		if c := t.StorageClass; c == types.TransitionStorageClassGlacier || c == types.TransitionStorageClassDeepArchive {
			grave("transition", "moves objects to %s, where they cannot be read at once: pulls fail. Remove the transition", c)
		}
	}
	return found
}

// smallObjects is how the names begin of what lies beside the layers: backups, and the owner mark.
const smallObjects = "pontoon-"

// mayBeLayers says whether layers can lie under a rule's prefix: their keys begin with an epoch, of lowercase letters and digits.
func (s *Store) mayBeLayers(prefix string) bool {
	epoch, _, _ := strings.Cut(strings.TrimPrefix(prefix, s.prefix), "/")
	return len(prefix) <= len(s.prefix) || strings.Trim(epoch, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// scope is the prefix that a rule is for, and whether only objects with a tag match it.
func scope(rule types.LifecycleRule) (prefix string, tagged bool) {
	prefix = aws.ToString(rule.Prefix) //nolint:staticcheck // old rules have it here
	f := rule.Filter
	if f == nil {
		return prefix, false
	}
	if f.And != nil {
		return aws.ToString(f.And.Prefix), len(f.And.Tags) > 0
	}
	if f.Prefix != nil {
		prefix = *f.Prefix
	}
	return prefix, f.Tag != nil
}

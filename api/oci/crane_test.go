package oci

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/pontoon-registry/pontoon/blobs"
)

// TestGoContainerRegistryPushesAndPulls drives the library under crane, ko and kaniko.
func TestGoContainerRegistryPushesAndPulls(t *testing.T) {
	stores(t, func(t *testing.T, s blobs.Store) {
		r := newRigOn(t, s, nil)
		host := strings.TrimPrefix(r.url, "http://")
		opts := []remote.Option{remote.WithTransport(r.client.Transport), remote.WithContext(t.Context())}
		ref := func(s string) name.Reference {
			parsed, err := name.ParseReference(host + "/" + s)
			if err != nil {
				t.Fatal(err)
			}
			return parsed
		}
		img, err := random.Image(4<<10, 3)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref("team/app:v1"), img, opts...); err != nil {
			t.Fatalf("push image: %v", err)
		}
		index, err := random.Index(1<<10, 2, 3)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(ref("team/app:multi"), index, opts...); err != nil {
			t.Fatalf("push index: %v", err)
		}
		pulled, err := remote.Image(ref("team/app:v1"), opts...)
		if err != nil {
			t.Fatalf("pull image: %v", err)
		}
		if err := validate.Image(pulled); err != nil {
			t.Errorf("image: %v", err)
		}
		pulledIndex, err := remote.Index(ref("team/app:multi"), opts...)
		if err != nil {
			t.Fatalf("pull index: %v", err)
		}
		if err := validate.Index(pulledIndex); err != nil {
			t.Errorf("index: %v", err)
		}
		// A copy to another repository mounts.
		if err := remote.Write(ref("team/copy:v1"), pulled, opts...); err != nil {
			t.Fatalf("copy: %v", err)
		}
		refer(t, ref("team/app:v1").Context(), img, opts)
		tags, err := remote.List(ref("team/app").Context(), opts...)
		if err != nil || !slices.Equal(tags, []string{"multi", "v1"}) {
			t.Errorf("tags %v, %v", tags, err)
		}
		reg, err := name.NewRegistry(host)
		if err != nil {
			t.Fatal(err)
		}
		repos, err := remote.Catalog(t.Context(), reg, opts...)
		if err != nil || !slices.Equal(repos, []string{"team/app", "team/copy"}) {
			t.Errorf("catalog %v, %v", repos, err)
		}
		if err := remote.Delete(ref("team/app:multi"), opts...); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
}

// refer attaches an artifact and reads it back through the referrers API.
func refer(t *testing.T, repo name.Repository, img v1.Image, opts []remote.Option) {
	t.Helper()
	subject, err := mutateDescriptor(img)
	if err != nil {
		t.Fatal(err)
	}
	artifact, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	attached, ok := mutate.Subject(artifact, *subject).(v1.Image)
	if !ok {
		t.Fatal("not an image")
	}
	d, err := attached.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(repo.Digest(d.String()), attached, opts...); err != nil {
		t.Fatalf("push artifact: %v", err)
	}
	list, err := remote.Referrers(repo.Digest(subject.Digest.String()), opts...)
	if err != nil {
		t.Fatalf("referrers: %v", err)
	}
	m, err := list.IndexManifest()
	if err != nil || len(m.Manifests) != 1 || m.Manifests[0].Digest != d {
		t.Errorf("referrers %+v, %v", m, err)
	}
	if _, err := remote.Head(repo.Tag(fallbackOf(subject.Digest)), opts...); err == nil {
		t.Error("the client fell back to a tag")
	}
}

func fallbackOf(h v1.Hash) string { return h.Algorithm + "-" + h.Hex }

func mutateDescriptor(img v1.Image) (*v1.Descriptor, error) {
	d, err := img.Digest()
	if err != nil {
		return nil, err
	}
	size, err := img.Size()
	if err != nil {
		return nil, err
	}
	mediaType, err := img.MediaType()
	return &v1.Descriptor{MediaType: mediaType, Digest: d, Size: size}, err
}

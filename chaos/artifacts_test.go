package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// helm pushes and pulls charts.
type helm struct {
	program
	registry string
}

func newHelm(t testing.TB, registry string) helm {
	return helm{newProgram(t, "helm"), registry}
}

// roundTrip packs a chart, pushes it, and pulls it twice: by its version, and as the newest of the versions that the tags
// list. Both must be the bytes that were packed. The plus in the version becomes an underscore in the tag.
func (h helm) roundTrip(ctx context.Context, y *tally, i int) {
	version := fmt.Sprintf("0.%d.0+chaos", i)
	chart, packed, to := filepath.Join(h.home, "chart"), filepath.Join(h.home, "chart-"+version+".tgz"), filepath.Join(h.home, "pulled")
	for _, dir := range []string{filepath.Join(chart, "templates"), to} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			y.t.Error(err)
			return
		}
	}
	for name, content := range map[string][]byte{
		"Chart.yaml":          []byte("apiVersion: v2\nname: chart\ndescription: noise\nversion: " + version + "\n"),
		"templates/noise.txt": []byte(fmt.Sprintf("%x", noise("chart"+version, 64<<10))),
	} {
		if err := os.WriteFile(filepath.Join(chart, name), content, 0o644); err != nil {
			y.t.Error(err)
			return
		}
	}
	if _, err := h.run(ctx, "package", chart, "--destination", h.home); err != nil {
		y.t.Error(err)
		return
	}
	want, err := os.ReadFile(packed)
	if err != nil {
		y.t.Error(err)
		return
	}
	y.push("chart "+version, func() error {
		_, err := h.run(ctx, "push", packed, "oci://"+h.registry+"/helm", "--plain-http")
		return err
	})
	for _, args := range [][]string{{"--version", version}, nil} {
		y.pull("chart "+version, func() error {
			_, err := h.run(ctx, append([]string{"pull", "oci://" + h.registry + "/helm/chart", "--plain-http", "--destination", to}, args...)...)
			return err
		})
		pulled := filepath.Join(to, filepath.Base(packed))
		got, err := os.ReadFile(pulled)
		if err != nil || !bytes.Equal(got, want) {
			y.t.Errorf("helm pushed chart %s of %d bytes and pulled %d with %q, %v", version, len(want), len(got), args, err)
		}
		os.Remove(pulled)
	}
	os.Remove(packed)
}

// cosign signs images, in the two ways that it keeps signatures in a registry: as a manifest with a subject, which the
// referrers list, and under a tag made of the image's digest. It asks nobody beyond the registry.
type cosign struct {
	program
	registry    string
	key, public string
}

func newCosign(t testing.TB, registry string) cosign {
	t.Helper()
	c := cosign{program: newProgram(t, "cosign"), registry: registry}
	c.env = append(c.env, "COSIGN_PASSWORD=chaos")
	c.key, c.public = c.pair(t, "mine")
	return c
}

func (c cosign) pair(t testing.TB, name string) (key, public string) {
	t.Helper()
	prefix := filepath.Join(c.home, name)
	if _, err := c.run(t.Context(), "generate-key-pair", "--output-key-prefix", prefix); err != nil {
		t.Fatal(err)
	}
	return prefix + ".key", prefix + ".pub"
}

func (c cosign) sign(ctx context.Context, image string, bundle bool) error {
	_, err := c.run(ctx, "sign", "--yes", "--key", c.key, fmt.Sprintf("--new-bundle-format=%v", bundle), "--use-signing-config=false",
		"--tlog-upload=false", "--allow-insecure-registry", "--allow-http-registry", image)
	return err
}

func (c cosign) verify(ctx context.Context, image, public string, bundle bool) error {
	_, err := c.run(ctx, "verify", "--key", public, fmt.Sprintf("--new-bundle-format=%v", bundle), "--insecure-ignore-tlog",
		"--allow-insecure-registry", "--allow-http-registry", image)
	return err
}

// roundTrip pushes an image, signs it in both ways and verifies both; then it asks for the signatures as other clients do.
func (c cosign) roundTrip(ctx context.Context, y *tally, i int) {
	repo, r := fmt.Sprintf("cosign/image%d", i), at("http://"+c.registry)
	defer r.client.CloseIdleConnections()
	y.push(repo, func() error { return pushSmall(ctx, r, repo, "v1") })
	var digest string
	y.pull(repo, func() (err error) {
		digest, err = r.image(ctx, repo, "v1")
		return err
	})
	image := c.registry + "/" + repo + "@" + digest
	for _, bundle := range []bool{true, false} {
		y.push("signature of "+repo, func() error { return c.sign(ctx, image, bundle) })
		y.pull("signature of "+repo, func() error { return c.verify(ctx, image, c.public, bundle) })
	}
	y.pull("signatures of "+repo, func() error {
		if _, err := r.image(ctx, repo, strings.Replace(digest, ":", "-", 1)+".sig"); err != nil {
			return err
		}
		a, err := r.want(ctx, http.StatusOK, http.MethodGet, "/v2/"+repo+"/referrers/"+digest, nil, nil)
		if err != nil {
			return err
		}
		var index manifest
		if err := json.Unmarshal(a.body, &index); err != nil {
			return fmt.Errorf("decode referrers: %w", err)
		}
		if len(index.Manifests) == 0 { // more than one where an attempt was cut after its manifest was in
			return fmt.Errorf("%s has a signature with a subject, and no referrers", image)
		}
		for _, d := range index.Manifests {
			if _, err := r.image(ctx, repo, d.Digest); err != nil {
				return err
			}
		}
		return nil
	})
}

// refusesStrangers shows that the verification of this test can fail.
func (c cosign) refusesStrangers(ctx context.Context, y *tally, i int) {
	_, public := c.pair(y.t, "stranger")
	repo := fmt.Sprintf("cosign/image%d", i)
	digest, err := at("http://"+c.registry).resolve(ctx, repo, "v1")
	if err != nil {
		y.t.Error(err)
		return
	}
	for _, bundle := range []bool{true, false} {
		if err := c.verify(ctx, c.registry+"/"+repo+"@"+digest, public, bundle); err == nil {
			y.t.Errorf("cosign verified %s with a key that never signed it", repo)
		}
	}
}

package chaos

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// login adds one user's name and password to every request.
type login struct {
	name, password string
	next           http.RoundTripper
}

func (l login) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.SetBasicAuth(l.name, l.password)
	return l.next.RoundTrip(r)
}

// TestTLSAndLoginWorkBehindTheShippedBalancer runs the nodes as they run beyond loopback: certificates that the cluster
// issues, an htpasswd file, and HAProxy as shipped, its health check over TLS and the PROXY header before it.
func TestTLSAndLoginWorkBehindTheShippedBalancer(t *testing.T) {
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(users, []byte("ann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDeployment(t, newDirectory(t), options{tls: true, extra: "auth:\n  htpasswd:\n    realm: chaos\n    path: " + users + "\n"})

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ca, err := exec.CommandContext(ctx, pontoon(t), "cluster", "ca", "--config", d.nodes[0].config).Output()
	if err != nil {
		t.Fatalf("print the CA: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("not a PEM certificate: %s", ca)
	}
	// A connection per request: each goes to the next node.
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	stranger := &registry{base: "https://" + d.balancer, client: &http.Client{Transport: transport}}
	eventually(t, 20*time.Second, "the balancer to find the nodes ready", func() error {
		_, err := stranger.want(ctx, http.StatusUnauthorized, http.MethodGet, "/v2/", nil, nil)
		return err
	})
	ann := &registry{base: stranger.base, client: &http.Client{Transport: login{"ann", "secret", transport}}}
	wrong := &registry{base: stranger.base, client: &http.Client{Transport: login{"ann", "guess", transport}}}
	for range len(d.nodes) {
		for client, status := range map[*registry]int{ann: http.StatusOK, wrong: http.StatusUnauthorized, stranger: http.StatusUnauthorized} {
			if _, err := client.want(ctx, status, http.MethodGet, "/v2/", nil, nil); err != nil {
				t.Error(err)
			}
		}
	}
	content := noise("tls", 100_000)
	if err := ann.pushBlob(ctx, "chaos/tls", content); err != nil {
		t.Error(err)
	}
	if err := ann.blob(ctx, "chaos/tls", digestOf(content)); err != nil {
		t.Error(err)
	}
	for _, client := range []*registry{wrong, stranger} {
		if _, err := client.want(ctx, http.StatusUnauthorized, http.MethodPost, "/v2/chaos/tls/blobs/uploads/", nil, nil); err != nil {
			t.Error(err)
		}
		if _, err := client.want(ctx, http.StatusUnauthorized, http.MethodGet, "/v2/chaos/tls/blobs/"+digestOf(content), nil, nil); err != nil {
			t.Error(err)
		}
	}

	image := newLayout(t)
	layer := tarOf(t, "hello", noise("tls layer", 10_000))
	image.name(image.image("amd64", []descriptor{image.put(mediaLayer, layer)}, []string{digestOf(layer)}))
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := newProgram(t, "skopeo").run(ctx, "copy", "--insecure-policy", "--preserve-digests", "--dest-cert-dir", dir,
		"--dest-creds", "ann:secret", "oci:"+image.dir+":v1", "docker://"+d.balancer+"/chaos/tls:v1")
	if err != nil {
		t.Errorf("%v %s", err, out)
	}
	root, err := image.root()
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := ann.resolve(ctx, "chaos/tls", "v1"); err != nil || digest != root.Digest {
		t.Errorf("skopeo pushed %s, the tag is %q, %v", root.Digest, digest, err)
	}
}

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

const subjectRepo = "artifacts/subject"

// artifact pushes the number-th artifact that refers to one image, and first that image, through the balancer, every
// request to the next node.
func (y *tally) artifact(ctx context.Context, d *deployment, number int) {
	r := at(d.url())
	r.client.Transport.(*http.Transport).DisableKeepAlives = true
	subject, config := artifactSubject()
	if number == 0 {
		y.push(subjectRepo, func() error {
			if err := r.pushBlob(ctx, subjectRepo, config); err != nil {
				return err
			}
			return r.putManifest(ctx, subjectRepo, "subject", mediaManifest, subject)
		})
	}
	body := artifact(number)
	y.push(fmt.Sprintf("%s artifact %d", subjectRepo, number), func() error {
		return r.putManifest(ctx, subjectRepo, digestOf(body), mediaManifest, body)
	})
}

func artifactSubject() (subject, config []byte) {
	config = []byte("{}")
	return manifest{MediaType: mediaManifest, ArtifactType: "chaos/subject", Config: new(describe(mediaEmpty, config))}.encode(), config
}

func artifact(i int) []byte {
	subject, config := artifactSubject()
	return manifest{
		MediaType: mediaManifest, ArtifactType: "chaos/signature",
		Config:      new(describe(mediaEmpty, config)),
		Subject:     new(describe(mediaManifest, subject)),
		Annotations: map[string]string{"number": fmt.Sprint(i)},
	}.encode()
}

// artifactsAreListed asks every node for the referrers of the subject.
func (y *tally) artifactsAreListed(ctx context.Context, d *deployment, count int) {
	subject, _ := artifactSubject()
	var want []string
	for i := range count {
		want = append(want, digestOf(artifact(i)))
	}
	slices.Sort(want)
	for _, n := range d.nodes {
		var got []string
		path := "/v2/" + subjectRepo + "/referrers/" + digestOf(subject)
		for path != "" {
			a, err := at(n.url()).want(ctx, http.StatusOK, http.MethodGet, path, nil, nil)
			if err != nil {
				y.t.Errorf("referrers on %s: %v", n.name, err)
				return
			}
			var index manifest
			if err := json.Unmarshal(a.body, &index); err != nil {
				y.t.Errorf("referrers on %s: %v", n.name, err)
				return
			}
			for _, d := range index.Manifests {
				got = append(got, d.Digest)
			}
			path, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			y.t.Errorf("%s lists %d referrers, want %d", n.name, len(got), len(want))
		}
	}
}

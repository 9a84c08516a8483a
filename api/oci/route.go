package oci

import (
	"strings"

	"github.com/pontoon-registry/pontoon/meta"
	metav1 "github.com/pontoon-registry/pontoon/proto/pontoon/meta/v1"
)

// target is which endpoint of the specification a path names.
type target int

// The endpoints; end-N are their ids in the specification's table.
const (
	nowhere   target = iota
	base             // end-1
	catalog          // of the Docker API, kept by every registry
	tagList          // end-8
	manifests        // end-3, 7, 9
	blobsOf          // end-2, 10
	uploads          // end-4, 11
	upload           // end-5, 6, 13, 14
	referrers        // end-12
)

// route is a parsed path. ref is the tag, digest or upload id, as it came.
type route struct {
	target target
	name   string
	ref    string
}

// parseRoute reads a decoded path. It goes from the end, because a repository
// name may itself hold components such as "blobs" or "tags". A path of no endpoint
// is KIND_UNKNOWN, a malformed name KIND_INVALID; references are checked by whoever uses them.
func parseRoute(path string) (route, error) {
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case !ok || (rest != "" && rest[0] != '/'):
		return route{}, noEndpoint()
	case rest == "" || rest == "/":
		return route{target: base}, nil
	case rest == "/_catalog":
		return route{target: catalog}, nil
	}
	r := split(rest[1:])
	if r.target == nowhere {
		return route{}, noEndpoint()
	}
	if err := meta.ParseRepository(r.name); err != nil {
		return route{}, err
	}
	return r, nil
}

func noEndpoint() error {
	return meta.Refuse(metav1.Kind_KIND_UNKNOWN, metav1.Noun_NOUN_UNSPECIFIED,
		"path: expected /v2/, /v2/_catalog or /v2/<name>/{blobs,manifests,tags/list,referrers}/..., got none of them")
}

// split takes the endpoint off the end of path, which has no leading slash.
func split(path string) route {
	if name, ok := strings.CutSuffix(path, "/tags/list"); ok {
		return route{target: tagList, name: name}
	}
	for _, suffix := range []string{"/blobs/uploads/", "/blobs/uploads"} {
		if name, ok := strings.CutSuffix(path, suffix); ok {
			return route{target: uploads, name: name}
		}
	}
	head, ref, ok := cutLast(path)
	if !ok {
		return route{}
	}
	if name, ok := strings.CutSuffix(head, "/blobs/uploads"); ok {
		return route{target: upload, name: name, ref: ref}
	}
	name, noun, ok := cutLast(head)
	if !ok {
		return route{}
	}
	switch noun {
	case "manifests":
		return route{target: manifests, name: name, ref: ref}
	case "blobs":
		return route{target: blobsOf, name: name, ref: ref}
	case "referrers":
		return route{target: referrers, name: name, ref: ref}
	}
	return route{}
}

func cutLast(path string) (before, after string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

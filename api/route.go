package api

import "strings"

// route is what metrics, logs and deadlines need to know of a path: nothing is
// judged here, api/oci does that. Handler names are distribution's.
type route struct {
	handler         string
	name, reference string
}

// The handlers that metrics know; the list bounds the label (A8).
const (
	handlerBase      = "base"
	handlerCatalog   = "catalog"
	handlerTags      = "tags"
	handlerManifest  = "manifest"
	handlerReferrers = "referrers"
	handlerBlob      = "blob"
	handlerUpload    = "blob_upload"
	handlerChunk     = "blob_upload_chunk"
	handlerHealth    = "health"
	handlerMount     = "mount"
	handlerOther     = "other"
)

func handlers() []string {
	return []string{handlerBase, handlerCatalog, handlerTags, handlerManifest, handlerReferrers, handlerBlob,
		handlerUpload, handlerChunk, handlerHealth, handlerMount, handlerOther}
}

// classify reads a path from its end, since a repository may be called "blobs" or "manifests/tags".
func classify(path string) route {
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case path == "/" || path == "/livez" || path == "/readyz" || path == "/startupz":
		return route{handler: handlerHealth}
	case !ok || (rest != "" && rest[0] != '/'):
		return route{handler: handlerOther}
	}
	rest = strings.TrimPrefix(rest, "/")
	switch rest {
	case "":
		return route{handler: handlerBase}
	case "_catalog":
		return route{handler: handlerCatalog}
	}
	if name, ok := strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/blobs/uploads"); ok {
		return route{handler: handlerUpload, name: name}
	}
	head, last := cutLast(rest)
	name, kind := cutLast(head)
	switch {
	case kind == "tags" && last == "list":
		return route{handler: handlerTags, name: name}
	case kind == "manifests":
		return route{handler: handlerManifest, name: name, reference: last}
	case kind == "referrers":
		return route{handler: handlerReferrers, name: name, reference: last}
	case kind == "blobs":
		return route{handler: handlerBlob, name: name, reference: last}
	}
	return uploadRoute(rest)
}

// uploadRoute finds <name>/blobs/uploads/<id and state>; the state in the path may have more elements.
func uploadRoute(rest string) route {
	i := strings.LastIndex(rest, "/blobs/uploads/")
	if i <= 0 {
		return route{handler: handlerOther}
	}
	return route{handler: handlerChunk, name: rest[:i], reference: rest[i+len("/blobs/uploads/"):]}
}

func cutLast(path string) (head, last string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// carriesLayers says whether a request may move a layer's bytes, or wait for work on them: such requests
// have no deadline over the whole (A1).
func (r route) carriesLayers() bool {
	switch r.handler {
	case handlerBlob, handlerUpload, handlerChunk, handlerMount:
		return true
	}
	return false
}

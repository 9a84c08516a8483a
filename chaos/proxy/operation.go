package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// Operation is a call of S3, by the name that its API has.
type Operation string

// The operations that can be told apart; all others are Other.
const (
	PutObject               Operation = "PutObject"
	CopyObject              Operation = "CopyObject"
	GetObject               Operation = "GetObject"
	HeadObject              Operation = "HeadObject"
	DeleteObject            Operation = "DeleteObject"
	DeleteObjects           Operation = "DeleteObjects"
	CreateMultipartUpload   Operation = "CreateMultipartUpload"
	UploadPart              Operation = "UploadPart"
	CompleteMultipartUpload Operation = "CompleteMultipartUpload"
	AbortMultipartUpload    Operation = "AbortMultipartUpload"
	ListParts               Operation = "ListParts"
	ListMultipartUploads    Operation = "ListMultipartUploads"
	ListObjectsV2           Operation = "ListObjectsV2"
	ListObjects             Operation = "ListObjects"
	HeadBucket              Operation = "HeadBucket"
	Other                   Operation = "Other"
)

// Writes are the operations that change something.
func Writes() []Operation {
	return []Operation{PutObject, CopyObject, UploadPart, CompleteMultipartUpload, CreateMultipartUpload, AbortMultipartUpload, DeleteObject, DeleteObjects}
}

// Lists are the operations that tell what there is.
func Lists() []Operation {
	return []Operation{ListObjectsV2, ListObjects, ListMultipartUploads, ListParts}
}

// operationOf tells what a request in path style asks for, of which bucket and key.
func operationOf(method string, u *url.URL, header http.Header) (op Operation, bucket, key string) {
	bucket, key, _ = strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	query := u.Query()
	if key == "" {
		return ofBucket(method, query), bucket, ""
	}
	return ofObject(method, query, header), bucket, key
}

func ofBucket(method string, query url.Values) Operation {
	switch method {
	case http.MethodHead:
		return HeadBucket
	case http.MethodPost:
		if query.Has("delete") {
			return DeleteObjects
		}
	case http.MethodGet:
		switch {
		case query.Get("list-type") == "2":
			return ListObjectsV2
		case query.Has("uploads"):
			return ListMultipartUploads
		}
		for _, sub := range []string{"versioning", "object-lock", "lifecycle", "location", "policy", "versions", "acl", "encryption", "tagging"} {
			if query.Has(sub) {
				return Other
			}
		}
		return ListObjects
	}
	return Other
}

func ofObject(method string, query url.Values, header http.Header) Operation {
	upload := query.Has("uploadId")
	switch method {
	case http.MethodHead:
		return HeadObject
	case http.MethodGet:
		if upload {
			return ListParts
		}
		return GetObject
	case http.MethodPut:
		switch {
		case upload && query.Has("partNumber"):
			return UploadPart
		case header.Get("X-Amz-Copy-Source") != "":
			return CopyObject
		}
		return PutObject
	case http.MethodPost:
		switch {
		case query.Has("uploads"):
			return CreateMultipartUpload
		case upload:
			return CompleteMultipartUpload
		}
	case http.MethodDelete:
		if upload {
			return AbortMultipartUpload
		}
		return DeleteObject
	}
	return Other
}

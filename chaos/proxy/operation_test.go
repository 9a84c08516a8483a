package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func FuzzOperationOf(f *testing.F) {
	f.Add("GET", "/bucket/key?x-id=GetObject", "")
	f.Add("PUT", "/b/k/l?partNumber=3&uploadId=x", "")
	f.Add("PUT", "/b/k", "/other/key")
	f.Add("POST", "/b?delete", "")
	f.Add("GET", "/?list-type=2&prefix=%ff", "")
	f.Fuzz(func(t *testing.T, method, target, from string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		op, bucket, key := operationOf(method, u, http.Header{"X-Amz-Copy-Source": {from}})
		if op == "" || strings.Contains(bucket, "/") {
			t.Errorf("%s %s: %q of bucket %q", method, target, op, bucket)
		}
		if ofKey := key != ""; ofKey && (op == HeadBucket || op == ListObjectsV2 || op == DeleteObjects) {
			t.Errorf("%s %s: %s of key %q", method, target, op, key)
		}
	})
}

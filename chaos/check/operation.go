package check

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Outcome is what a client may conclude from its answer.
type Outcome string

const (
	// Done is an operation that took effect between call and return. A read that says "not there" is done.
	Done Outcome = "done"
	// Refused is one that certainly had no effect.
	Refused Outcome = "refused"
	// Unknown is one that may take effect at any time after its call, or never.
	Unknown Outcome = "unknown"
)

// Kind is what an operation does; the models know these.
type Kind string

const (
	// TagPut writes tags: Key is the tag, or several with commas between, which one request writes together. Input is the
	// digest; Expect is the precondition. Done, Output is the digest that the answer named. Refused with 412, Output is the digest that the tag had instead ("" is none).
	TagPut Kind = "tag-put"
	// TagGet reads a tag: Output is the digest of the bytes (of a HEAD: the one it names), "" is "not there". Input, when
	// set, is the digest that the answer named.
	TagGet Kind = "tag-get"
	// TagDelete removes a tag; Expect may be a digest. Refused with 404, there was none.
	TagDelete Kind = "tag-delete"
	// ManifestPut puts a manifest by digest: Input is the digest, Output the one that the answer named. Key is empty.
	ManifestPut Kind = "manifest-put"
	// ManifestGet reads a manifest by digest: Input is the digest, Output the digest of the bytes, "" is "not there".
	ManifestGet Kind = "manifest-get"
	// ManifestDelete removes the manifest Input and every tag that names it. Refused with 404, there was none.
	ManifestDelete Kind = "manifest-delete"
	// LockAcquire takes the lock Key for holder Input: Token is the grant. Refused with 409, it was held.
	LockAcquire Kind = "lock-acquire"
	// LockRenew keeps the lock Key that Token holds. Refused with 409, Token does not hold it.
	LockRenew Kind = "lock-renew"
	// LockRelease gives back the lock Key that Token holds; a Token of 0 is force. Refused with 409, Token does not hold it.
	LockRelease Kind = "lock-release"
	// GuardWrite writes Input under Token to what the lock Key protects; Refused with 409, a higher token was there before.
	GuardWrite Kind = "guard-write"
	// GuardRead reads it: Output is the value, Token the token it was written under.
	GuardRead Kind = "guard-read"
	// BlobPut uploads a blob: Input is the digest, Output, when set, that of the bytes that were sent.
	BlobPut Kind = "blob-put"
	// BlobMount mounts the blob Input from the repository Key.
	BlobMount Kind = "blob-mount"
	// BlobGet reads a blob: Input is the digest, Output that of the bytes, "" is "not there".
	BlobGet Kind = "blob-get"
	// BlobDelete removes the blob Input from the repository.
	BlobDelete Kind = "blob-delete"
	// TagList and the other lists are counted and timed; no model judges them.
	TagList Kind = "tag-list"
	// RepoList lists repositories.
	RepoList Kind = "repo-list"
	// ReferrerList lists what refers to the manifest Input.
	ReferrerList Kind = "referrer-list"
)

// Absent is the precondition If-None-Match: *; any other but "" is the digest of If-Match.
const Absent = "*"

// The classes of request whose availability is told.
const (
	PullByDigest = "pull by digest"
	PullByTag    = "pull by tag"
	PutManifest  = "manifest put"
	WriteTag     = "tag write"
	UploadBlob   = "blob upload"
	Delete       = "delete"
	List         = "list"
	Lock         = "lock"
)

// Operation is one request of a client with its answer. Times are since the begin of the history.
type Operation struct {
	Client int    `json:"client"`
	Node   string `json:"node,omitempty"` // that was asked, or the balancer
	Class  string `json:"class"`
	Kind   Kind   `json:"kind"`
	Repo   string `json:"repo,omitempty"`
	Key    string `json:"key,omitempty"` // see Kind
	Input  string `json:"input,omitempty"`
	Output string `json:"output,omitempty"`
	// Expect is the precondition: "" is none, Absent, or a digest.
	Expect string `json:"expect,omitempty"`
	Token  uint64 `json:"token,omitempty"`
	// TTL is how long LockAcquire and LockRenew asked for.
	TTL    time.Duration `json:"ttl,omitempty"`
	Status int           `json:"status,omitempty"` // of HTTP; 0 is no answer
	// Revision is the index that the answer was made at (Pontoon-Revision); 0 is not told.
	Revision uint64 `json:"revision,omitempty"`
	// Stale: the answer said that it may be old (Warning: 110). Such reads are judged by I7 only.
	Stale bool `json:"stale,omitempty"`
	// Request names the request in the logs of the nodes.
	Request string        `json:"request,omitempty"`
	Error   string        `json:"error,omitempty"`
	Call    time.Duration `json:"call"`
	// Return is when the client had the answer or gave up; an unknown outcome may come later.
	Return  time.Duration `json:"return"`
	Outcome Outcome       `json:"outcome"`
}

// Fault is what was done to the deployment.
type Fault struct {
	Name   string        `json:"name"`
	Target string        `json:"target,omitempty"`
	From   time.Duration `json:"from"`
	Until  time.Duration `json:"until"`
}

// Judge is what an answer to a request allows to conclude. Only what the registry decided not to do is refused: every
// 4xx but those that speak of a body or a client that stopped (408, 499) or of a racing attempt of the same upload
// (416), whose bytes were perhaps kept. 5xx is always unknown, 503 too: the registry answers it for "certainly not
// done" and for "outcome unknown" alike. A read that finds nothing (404) is done.
func Judge(kind Kind, status int, err error) Outcome {
	switch {
	case err != nil, status < 200, status >= 500:
		return Unknown
	case status < 400:
		return Done
	case kind.Reads() && status == http.StatusNotFound:
		return Done
	case status == http.StatusRequestTimeout, status == 499, status == http.StatusRequestedRangeNotSatisfiable:
		return Unknown
	}
	return Refused
}

// Reads tells whether the kind changes nothing.
func (k Kind) Reads() bool {
	switch k {
	case TagGet, ManifestGet, BlobGet, TagList, RepoList, ReferrerList, GuardRead:
		return true
	}
	return false
}

// writes tells whether the request asks the registry for a change. It goes by the class, so that it holds for kinds that
// no model knows.
func (o *Operation) writes() bool {
	switch o.Class {
	case PutManifest, WriteTag, UploadBlob, Delete, Lock:
		return true
	}
	return false
}

// validate refuses what no recorder writes.
func (o *Operation) validate() error {
	switch {
	case o.Kind == "":
		return errors.New("operation without a kind")
	case o.Outcome != Done && o.Outcome != Refused && o.Outcome != Unknown:
		return fmt.Errorf("outcome: got %q, expected %s, %s or %s", o.Outcome, Done, Refused, Unknown)
	case o.Call < 0 || o.Return < o.Call:
		return fmt.Errorf("operation returns at %v, called at %v", o.Return, o.Call)
	}
	return nil
}

package s3

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Config says which bucket and how. The names in brackets are those of the
// configuration file, which are distribution's where it has them.
type Config struct {
	// Region [region]. Default us-east-1 with RegionEndpoint; required without.
	Region string
	// RegionEndpoint [regionendpoint] is the server's URL or host:port. Default: Amazon's of the region.
	RegionEndpoint string
	// Bucket [bucket]. Required; it must exist.
	Bucket string
	// RootDirectory [rootdirectory] is put before every key. Default none.
	// Danger: two clusters with the same one in the same bucket are told apart only by the owner mark.
	RootDirectory string
	// AccessKey, SecretKey, SessionToken [accesskey secretkey sessiontoken]. Default: the SDK's credential
	// chain (environment, shared files, web identity, container, instance). SessionToken needs the two.
	AccessKey, SecretKey, SessionToken string
	// ForcePathStyle [forcepathstyle] puts the bucket into the path. Default: into the host name. Most servers but Amazon's need it.
	ForcePathStyle bool
	// Insecure [secure: false] speaks HTTP to a RegionEndpoint without scheme. Default HTTPS.
	// Danger: credentials are not sent, but layers can be read on the way.
	Insecure bool
	// SkipVerify [skipverify] trusts any certificate. Default false. Danger: whoever is in between can read and change layers.
	SkipVerify bool
	// CAFile [cafile] holds certificates in PEM that are trusted besides the system's. Default none.
	CAFile string
	// Proxy [proxy] is the URL of an HTTP proxy. Default: HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment.
	Proxy string
	// Encrypt [encrypt] asks for SSE-S3, or SSE-KMS with KeyID. Default: what the bucket does.
	Encrypt bool
	// KeyID [keyid] is the KMS key; needs Encrypt.
	KeyID string
	// StorageClass [storageclass], such as STANDARD_IA. Default: the server's. Danger: archive classes cannot be read.
	StorageClass string
	// EqualParts [equalparts] is for servers that want all parts but the last of one size and no gaps in
	// their numbers. Default false. Price: parts of 16 MiB, at most 156 GiB a layer, and an upload whose writer died,
	// or that comes in several requests which do not end at multiples of 16 MiB, starts over.
	EqualParts bool
	// Checksums [checksums] is supported (checksums sent and verified wherever S3 has them) or required (only
	// where S3 demands them; for servers that refuse the headers). Default supported.
	Checksums string
	// Memory [memory] bounds the bytes of all uploads that are in memory, in bytes; besides, each upload has 32 KiB.
	// Default 256 MiB, at least 8 MiB. Danger: a little one makes many uploads at once slower, through the store.
	Memory int64
	// MaxCalls [maxcalls] bounds calls in flight, streams being read excepted. Default 256, 1 to 10,000.
	MaxCalls int
	// MaxAttempts [maxattempts] is how often a call that may be repeated is made. Default 4, 1 to 20.
	MaxAttempts int
	// CallTimeout [calltimeout] bounds a call with its repetitions; one that moves bytes gets 1 s for every
	// 256 KiB besides. Default 15 s, 1 s to 10 min. Danger: it is how long a client waits for a store that hangs.
	CallTimeout time.Duration
	// ReadTimeout [readtimeout] ends a stream when no byte came for so long while one was waited for. Default 60 s, 1 s to 10 min.
	ReadTimeout time.Duration
	// Repeated, when set, is called before every repetition of a call by the SDK, and of a stream that broke. It must be quick and safe for concurrent use.
	Repeated func()
	// UserAgent [useragent] is added to the SDK's. Default pontoon.
	UserAgent string
}

// withDefaults answers c with its zero fields filled.
func (c Config) withDefaults() Config {
	if c.Region == "" && c.RegionEndpoint != "" {
		c.Region = "us-east-1"
	}
	if c.Checksums == "" {
		c.Checksums = "supported"
	}
	if c.UserAgent == "" {
		c.UserAgent = "pontoon"
	}
	c.Memory = orDefault(c.Memory, 256<<20)
	c.MaxCalls = orDefault(c.MaxCalls, 256)
	c.MaxAttempts = orDefault(c.MaxAttempts, 4)
	c.CallTimeout = orDefault(c.CallTimeout, 15*time.Second)
	c.ReadTimeout = orDefault(c.ReadTimeout, time.Minute)
	return c
}

func orDefault[T int | int64 | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// Validate answers the joined errors, each with the field and its bound.
func (c Config) Validate() error {
	c = c.withDefaults()
	var failed []error
	refuse := func(wrong bool, format string, args ...any) {
		if wrong {
			failed = append(failed, fmt.Errorf("s3: "+format, args...))
		}
	}
	refuse(c.Bucket == "" || strings.ContainsAny(c.Bucket, "/ \t\n"), "bucket %q: must be the name of a bucket", c.Bucket)
	refuse(c.Region == "", "region: must be set, or regionendpoint")
	refuse((c.AccessKey == "") != (c.SecretKey == ""), "accesskey and secretkey: both or neither")
	refuse(c.SessionToken != "" && c.AccessKey == "", "sessiontoken: needs accesskey and secretkey")
	refuse(c.KeyID != "" && !c.Encrypt, "keyid: needs encrypt: true")
	refuse(c.Checksums != "supported" && c.Checksums != "required", "checksums %q: must be supported or required", c.Checksums)
	refuse(c.Memory < minMemory || c.Memory > 1<<40, "memory %d: must be %d (8 MiB) to 1 TiB, in bytes", c.Memory, int64(minMemory))
	refuse(c.MaxCalls < 1 || c.MaxCalls > 10_000, "maxcalls %d: must be 1 to 10000", c.MaxCalls)
	refuse(c.MaxAttempts < 1 || c.MaxAttempts > 20, "maxattempts %d: must be 1 to 20", c.MaxAttempts)
	refuse(outside(c.CallTimeout), "calltimeout %v: must be 1s to 10m", c.CallTimeout)
	refuse(outside(c.ReadTimeout), "readtimeout %v: must be 1s to 10m", c.ReadTimeout)
	refuse(strings.ContainsAny(c.UserAgent, "\r\n"), "useragent: must be one line")
	if root := strings.Trim(c.RootDirectory, "/"); root != "" {
		for _, element := range strings.Split(root, "/") {
			refuse(element == "" || element == "." || element == "..", "rootdirectory %q: no empty, . or .. elements", c.RootDirectory)
		}
		refuse(len(root) > 256, "rootdirectory: at most 256 bytes, has %d", len(root))
	}
	failed = append(failed, checkURL("regionendpoint", c.endpoint()), checkURL("proxy", c.Proxy))
	return errors.Join(failed...)
}

func outside(d time.Duration) bool { return d < time.Second || d > 10*time.Minute }

func checkURL(field, value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("s3: %s: must be http://host:port or https://host:port", field) // not its value: it may hold a password
	}
	return nil
}

// endpoint answers RegionEndpoint with a scheme.
func (c Config) endpoint() string {
	switch {
	case c.RegionEndpoint == "" || strings.Contains(c.RegionEndpoint, "://"):
		return c.RegionEndpoint
	case c.Insecure:
		return "http://" + c.RegionEndpoint
	}
	return "https://" + c.RegionEndpoint
}

// prefix answers what stands before every key.
func (c Config) prefix() string {
	if root := strings.Trim(c.RootDirectory, "/"); root != "" {
		return root + "/"
	}
	return ""
}

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is the whole configuration, each field bound to one key of the table
// in keys.go, which has its default, bounds and meaning.
type Config struct {
	Log        LogConfig
	Storage    StorageConfig
	HTTP       HTTPConfig
	Auth       AuthConfig
	Validation ValidationConfig
	Catalog    int64 // catalog.maxentries
	Tags       int64 // tags.maxtags
	Cluster    ClusterConfig
	GC         GCConfig
	Backup     BackupConfig
}

// LogConfig is section log.
type LogConfig struct {
	Level, Formatter  string
	Fields            map[string][]string
	AccessLogDisabled bool
	SlowRequest       time.Duration
}

// StorageConfig is section storage. Driver is filesystem or s3.
type StorageConfig struct {
	Driver          string
	Filesystem      FilesystemConfig
	S3              S3Config
	Delete          bool
	RedirectDisable bool
}

// FilesystemConfig is section storage.filesystem.
type FilesystemConfig struct {
	RootDirectory string
	Shared        bool
}

// S3Config is section storage.s3.
type S3Config struct {
	AccessKey, SecretKey, SessionToken string
	Region, RegionEndpoint, Bucket     string
	ForcePathStyle, Secure, SkipVerify bool
	Encrypt, EqualParts                bool
	KeyID, RootDirectory, StorageClass string
	CAFile, Proxy                      string
	Checksums                          string
	Memory, MaxCalls, MaxAttempts      int64
	CallTimeout, ReadTimeout           time.Duration
}

// HTTPConfig is section http.
type HTTPConfig struct {
	Addr, Host     string
	RelativeURLs   bool
	DrainTimeout   time.Duration
	DrainDelay     time.Duration
	TLS            TLSConfig
	IdleBody       time.Duration
	MaxConnections int64
	DebugAddr      string
	Headers        map[string][]string
	ProxyProtocol  []string
}

// TLSConfig is section http.tls. Mode is none, files or issued (by the cluster's public CA).
type TLSConfig struct {
	Mode             string
	Certificate, Key string
	ClientCAs        []string
	ClientAuth       string
	MinimumTLS       string
	CipherSuites     []string
	Names            []string
}

// AuthConfig is section auth. Kind is none or htpasswd.
type AuthConfig struct {
	Kind        string
	Realm, Path string
}

// ValidationConfig is section validation.
type ValidationConfig struct {
	Platforms                   string
	SparseImages, SparseIndexes bool
}

// ClusterConfig is section cluster.
type ClusterConfig struct {
	Name, ID, DataDir, NodeName string
	Join                        []string
	Expect, Voters, LogBytes    int64
	SecretFile                  string
	TLS                         NodeTLSConfig
	Addr, Advertise             string
	GossipAddr, GossipAdvertise string
	ReadsOffline, ReadsStale    time.Duration
	DeadReplace, DeadForget     time.Duration
	Upgrade                     string
	MinFree, Ballast            int64 // cluster.disk
}

// NodeTLSConfig is section cluster.tls: the operator's own CA between nodes.
type NodeTLSConfig struct {
	Certificate, Key, CA string
	Names                []string
}

// Alone is true for a node that is meant to be the only one.
func (c ClusterConfig) Alone() bool { return len(c.Join) == 0 && c.Expect <= 1 }

// GCConfig is section gc.
type GCConfig struct {
	Enabled, Untagged, UnsafeShort bool
	Schedule                       string
	Grace, Delay, Orphans, Uploads time.Duration
	DeletesPerSecond               int64
}

// host is what the defaults depend on, and how the process ends; tests fill it.
type host struct {
	env  []string
	euid int
	name string
	exit func(code int)
}

func thisHost() host {
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return host{env: os.Environ(), euid: os.Geteuid(), name: name, exit: os.Exit}
}

func (h host) getenv(name string) string {
	for _, kv := range h.env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}

// dataDir is where a node keeps its state unless told otherwise.
func (h host) dataDir() string {
	if h.euid == 0 {
		return "/var/lib/pontoon"
	}
	base := cmp.Or(h.getenv("XDG_DATA_HOME"), filepath.Join(cmp.Or(h.getenv("HOME"), "."), ".local", "share"))
	return filepath.Join(base, "pontoon")
}

const (
	// systemConfig is read when no file is named and it exists.
	systemConfig = "/etc/pontoon/config.yml"
	// pathVariable names the file, as distribution spells it.
	pathVariable = "REGISTRY_CONFIGURATION_PATH"
	// configBound is the longest config file, in bytes.
	configBound = 1 << 20
)

// loaded is a checked configuration and what is to be said about it.
type loaded struct {
	*Config
	// File is empty when there was none.
	File    string
	Notices []string
	keys    *keyring
}

// loadConfig finds, reads and checks the configuration: the file first, then the
// environment over it, then what must hold between keys. Its error is a
// configError that lists every problem, not only the first.
func loadConfig(path string, h host) (*loaded, error) {
	path, err := findConfig(path, h)
	if err != nil {
		return nil, err
	}
	var body []byte
	if path != "" {
		if body, err = readBounded(path); err != nil {
			return nil, &configError{problems: []problem{{Where: path, Text: err.Error()}}}
		}
	}
	return parseConfig(path, body, h)
}

func findConfig(path string, h host) (string, error) {
	if path = cmp.Or(path, h.getenv(pathVariable)); path != "" {
		return path, nil
	}
	_, err := os.Stat(systemConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return systemConfig, err
}

func parseConfig(path string, body []byte, h host) (*loaded, error) {
	c := &Config{}
	k := newKeyring(keysOf(c, h))
	if path != "" {
		k.readFile(path, body)
	}
	k.readEnv(h.env)
	c.settle(k)
	c.check(k)
	if len(k.problems) > 0 {
		return nil, &configError{problems: k.problems}
	}
	return &loaded{Config: c, File: path, Notices: k.notices, keys: k}, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	body, err := io.ReadAll(io.LimitReader(f, configBound+1))
	if err != nil {
		return nil, err
	}
	if len(body) > configBound {
		return nil, fmt.Errorf("longer than %d bytes", configBound)
	}
	return body, nil
}

// problem is one thing that is wrong: where (file:line or $VARIABLE), which key, and what to do.
type problem struct {
	Where string `json:"where,omitempty"`
	Key   string `json:"key,omitempty"`
	Text  string `json:"problem"`
}

func (p problem) String() string {
	var parts []string
	for _, s := range []string{p.Where, p.Key, p.Text} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// configError is everything that is wrong with a configuration.
type configError struct{ problems []problem }

func (e *configError) Error() string {
	lines := make([]string, len(e.problems))
	for i, p := range e.problems {
		lines[i] = p.String()
	}
	return "configuration: " + strings.Join(lines, "\nconfiguration: ")
}

package main

import (
	"path/filepath"
	"strings"
	"time"
)

// keysOf is the table of every key that a configuration may name, bound to the fields of c. Its order is that of
// `pontoon config print`. The keys that are not honoured are in keys_other.go.
func keysOf(c *Config, h host) []key {
	var table []key
	table = append(table, generalKeys(c)...)
	table = append(table, storageKeys(c)...)
	table = append(table, httpKeys(c)...)
	table = append(table, clusterKeys(c, h)...)
	table = append(table, gcKeys(c)...)
	table = append(table, backupKeys(c)...)
	return append(table, otherKeys()...)
}

const day = 24 * time.Hour

func generalKeys(c *Config) []key {
	return []key{
		{path: "version", into: text{new(string), oneOf("0.1")}, def: "0.1", doc: "shape of this file, as in distribution"},

		{path: "log.level", into: text{&c.Log.Level, oneOf("debug", "info", "warn", "error")}, def: "info"},
		{path: "log.formatter", into: text{&c.Log.Formatter, oneOf("text", "json", "logstash")}, def: "text"},
		{path: "log.fields", into: table{&c.Log.Fields}, doc: "added to every line"},
		{path: "log.accesslog.disabled", into: flag{&c.Log.AccessLogDisabled}, def: "false"},
		{path: "log.slowrequest", into: span{&c.Log.SlowRequest, time.Millisecond, time.Hour}, def: "2s",
			doc: "requests that take longer in the node are logged with their phases"},

		{path: "auth", into: text{&c.Auth.Kind, oneOf("none", "htpasswd")}, doc: "who may do anything; none must be said beyond loopback"},
		{path: "auth.none", into: text{new(string), oneOf("")}},
		{path: "auth.htpasswd.realm", into: text{&c.Auth.Realm, nil}, def: "Pontoon"},
		{path: "auth.htpasswd.path", into: text{&c.Auth.Path, nil}, doc: "bcrypt entries; read again when it changes"},

		{path: "validation.manifests.indexes.platforms", into: text{&c.Validation.Platforms, oneOf("all", "none")}, def: "all",
			doc: "none: indexes may name manifests that are absent"},
		{path: "validation.manifests.sparse.images", into: flag{&c.Validation.SparseImages}, def: "false",
			doc: "manifests may name layers that are absent"},
		{path: "validation.manifests.sparse.indexes", into: flag{&c.Validation.SparseIndexes}, def: "false",
			doc: "indexes may name manifests that are absent"},
		{path: "catalog.maxentries", into: number{&c.Catalog, 1, 10_000}, def: "1000", doc: "longest page of the catalog"},
		{path: "tags.maxtags", into: number{&c.Tags, 1, 10_000}, def: "1000", doc: "longest page of tags"},
	}
}

func storageKeys(c *Config) []key {
	s3 := &c.Storage.S3
	return []key{
		{path: "storage", into: text{&c.Storage.Driver, oneOf("filesystem", "s3")}, doc: "where layers are kept"},
		{path: "storage.filesystem.rootdirectory", into: text{&c.Storage.Filesystem.RootDirectory, nil},
			doc: "default: storage in the data directory"},
		{path: "storage.filesystem.shared", into: flag{&c.Storage.Filesystem.Shared}, def: "false",
			doc: "every node mounts this same directory"},

		{path: "storage.s3.region", into: text{&s3.Region, nil}, doc: "required without regionendpoint"},
		{path: "storage.s3.bucket", into: text{&s3.Bucket, nil}},
		{path: "storage.s3.regionendpoint", into: text{&s3.RegionEndpoint, nil}, doc: "for stores other than AWS: a URL, or host:port"},
		{path: "storage.s3.accesskey", into: text{&s3.AccessKey, nil}, secret: true, doc: "none: the SDK's own chain (environment, files, instance role)"},
		{path: "storage.s3.secretkey", into: text{&s3.SecretKey, nil}, secret: true},
		{path: "storage.s3.sessiontoken", into: text{&s3.SessionToken, nil}, secret: true},
		{path: "storage.s3.forcepathstyle", into: flag{&s3.ForcePathStyle}, def: "false"},
		{path: "storage.s3.rootdirectory", into: text{&s3.RootDirectory, nil}, doc: "prefix of every key"},
		{path: "storage.s3.secure", into: flag{&s3.Secure}, def: "true", doc: "TLS, for an endpoint without a scheme"},
		{path: "storage.s3.skipverify", into: flag{&s3.SkipVerify}, def: "false", doc: "danger: any certificate is believed"},
		{path: "storage.s3.cafile", into: text{&s3.CAFile, nil}, doc: "PEM file of the CA of a private endpoint"},
		{path: "storage.s3.proxy", into: text{&s3.Proxy, nil}, secret: true, doc: "URL of an HTTP proxy; default from HTTPS_PROXY"},
		{path: "storage.s3.encrypt", into: flag{&s3.Encrypt}, def: "false", doc: "ask the store to encrypt (SSE-S3; with keyid SSE-KMS)"},
		{path: "storage.s3.keyid", into: text{&s3.KeyID, nil}},
		{path: "storage.s3.storageclass", into: text{&s3.StorageClass, nil}},
		{path: "storage.s3.equalparts", into: flag{&s3.EqualParts}, def: "false",
			doc: "for stores that need parts of one size and without gaps; an upload then cannot change nodes"},
		{path: "storage.s3.checksums", into: text{&s3.Checksums, oneOf("supported", "required")}, def: "supported",
			doc: "required: only where S3 demands them, for servers that refuse the headers"},
		{path: "storage.s3.memory", into: amount{&s3.Memory, 8 << 20, 1 << 40}, def: "256MiB", doc: "bytes of all uploads together"},
		{path: "storage.s3.maxcalls", into: number{&s3.MaxCalls, 1, 10_000}, def: "256",
			doc: "calls in flight, and 16 times as many that wait; beyond them layers answer 503"},
		{path: "storage.s3.maxattempts", into: number{&s3.MaxAttempts, 1, 20}, def: "4", doc: "how often a call that may be repeated is made"},
		{path: "storage.s3.calltimeout", into: span{&s3.CallTimeout, time.Second, 10 * time.Minute}, def: "15s",
			doc: "how long a call may take, repetitions included, and 1s more for every 256KiB that it moves"},
		{path: "storage.s3.readtimeout", into: span{&s3.ReadTimeout, time.Second, 10 * time.Minute}, def: "1m",
			doc: "how long the store may be silent within a layer that is read"},

		{path: "storage.delete.enabled", into: flag{&c.Storage.Delete}, def: "true", doc: "whether clients may delete"},
		{path: "storage.redirect.disable", into: flag{&c.Storage.RedirectDisable}, def: "true",
			doc: "false: layers are answered with a redirect to the store"},
	}
}

func httpKeys(c *Config) []key {
	h := &c.HTTP
	return []key{
		{path: "http.addr", into: text{&h.Addr, hostPort}, def: "127.0.0.1:5000"},
		{path: "http.host", into: text{&h.Host, nil}, doc: "URL that clients use; default: answers hold relative locations"},
		{path: "http.relativeurls", into: flag{&h.RelativeURLs}, def: "false", doc: "relative locations although http.host is set"},
		{path: "http.draintimeout", into: span{&h.DrainTimeout, time.Second, day}, def: "1m",
			doc: "how long running requests are awaited at the end"},
		{path: "http.drain.delay", into: span{&h.DrainDelay, 0, 5 * time.Minute}, def: "5s",
			doc: "how long a node that is unready still accepts, so that balancers see it"},
		{path: "http.idlebody", into: span{&h.IdleBody, time.Second, time.Hour}, def: "1m",
			doc: "how long a client may be silent within a body"},
		{path: "http.maxconnections", into: number{&h.MaxConnections, 16, 1_000_000}, def: "8192"},
		{path: "http.tls", into: text{&h.TLS.Mode, oneOf("none")}, doc: "none must be said beyond loopback"},
		{path: "http.tls.certificate", into: text{&h.TLS.Certificate, nil}, doc: "PEM file; default: issued by the cluster"},
		{path: "http.tls.key", into: text{&h.TLS.Key, nil}},
		{path: "http.tls.clientcas", into: list{at: &h.TLS.ClientCAs}, doc: "PEM files: clients must show a certificate of one of these"},
		{path: "http.tls.clientauth", into: text{&h.TLS.ClientAuth, oneOf("require-and-verify-client-cert", "verify-client-cert-if-given")}},
		{path: "http.tls.minimumtls", into: text{&h.TLS.MinimumTLS, oneOf("tls1.2", "tls1.3")}, def: "tls1.2"},
		{path: "http.tls.ciphersuites", into: list{at: &h.TLS.CipherSuites}, doc: "of TLS 1.2, by their IANA names"},
		{path: "http.tls.names", into: list{at: &h.TLS.Names},
			doc: "names and addresses in the certificate that the cluster issues; default: http.host, host name, interface addresses"},
		{path: "http.debug.addr", into: text{&h.DebugAddr, debugAddr}, def: "127.0.0.1:5001", doc: "health in detail and metrics; none switches it off"},
		{path: "http.headers", into: table{&h.Headers}, doc: "on every answer, such as Strict-Transport-Security"},
		{path: "http.proxyprotocol.trusted", into: list{&h.ProxyProtocol, prefix},
			doc: "ranges of balancers that may send a PROXY protocol v2 header"},
	}
}

func clusterKeys(c *Config, h host) []key {
	n := &c.Cluster
	return []key{
		{path: "cluster.datadir", into: text{&n.DataDir, nil}, def: filepath.Clean(h.dataDir()), doc: "state of this node; one node each"},
		{path: "cluster.name", into: text{&n.Name, label}, def: "pontoon", doc: "keeps clusters on one network apart"},
		{path: "cluster.node", into: text{&n.NodeName, label}, def: labelOf(h.name), doc: "what people call this node"},
		{path: "cluster.id", into: text{&n.ID, nil}, doc: "join only the cluster with this id"},
		{path: "cluster.join", into: list{&n.Join, hostPortOptional}, doc: "gossip addresses of nodes, this one may be among them; port 7946 unless said"},
		{path: "cluster.expect", into: number{&n.Expect, 0, 9}, def: "0",
			doc: "how many nodes found the cluster; default: the number of join addresses, or 1 without any"},
		{path: "cluster.secretfile", into: text{&n.SecretFile, nil}, doc: "the secret that all nodes share; see `pontoon cluster secret`"},
		{path: "cluster.tls.certificate", into: text{&n.TLS.Certificate, nil},
			doc: "PEM file of this node's own certificate between nodes, for serverAuth and clientAuth; default: derived from the secret. Before the first start of the cluster only, and on all nodes"},
		{path: "cluster.tls.key", into: text{&n.TLS.Key, nil}},
		{path: "cluster.tls.ca", into: text{&n.TLS.CA, nil}, doc: "PEM file of the authorities that nodes' certificates are from"},
		{path: "cluster.tls.names", into: list{at: &n.TLS.Names},
			doc: "DNS names that nodes may have, such as *.pontoon.example.com; whoever the CA signed for under one of them is a node"},
		{path: "cluster.addr", into: text{&n.Addr, optional(hostPort)}, doc: "listens for nodes; default :7947, nothing for a node alone"},
		{path: "cluster.advertise", into: text{&n.Advertise, optional(hostPort)}, doc: "where other nodes reach cluster.addr"},
		{path: "cluster.gossip.addr", into: text{&n.GossipAddr, optional(hostPort)}, doc: "listens for gossip, TCP and UDP; default :7946"},
		{path: "cluster.gossip.advertise", into: text{&n.GossipAdvertise, optional(hostPort)}},
		{path: "cluster.voters", into: odd{number{&n.Voters, 1, 9}}, def: "5", doc: "at most so many nodes vote, the rest follow"},
		{path: "cluster.dead.replace", into: span{&n.DeadReplace, time.Second, day}, def: "1m",
			doc: "how long a voter is silent before a node that stands by votes in its place"},
		{path: "cluster.dead.forget", into: span{&n.DeadForget, time.Second, 365 * day}, def: "72h",
			doc: "how long a node without a vote is silent before it is removed for good"},
		{path: "cluster.upgrade", into: text{&n.Upgrade, oneOf("auto", "manual")}, def: "auto",
			doc: "manual: the release before can be installed again until `pontoon cluster finalize`"},
		{path: "cluster.log.size", into: amount{&n.LogBytes, 1 << 20, 1 << 40}, def: "512MiB",
			doc: "bytes of Raft's log on disk, beyond which it is compacted to half; a node that missed more is sent the whole state"},
		{path: "cluster.reads.offline", into: span{&n.ReadsOffline, 0, 30 * day}, def: "1h",
			doc: "how long content by digest is served without a quorum; 0 never"},
		{path: "cluster.reads.stale", into: span{&n.ReadsStale, 0, day}, def: "0s", doc: "tags this old may be served without a quorum"},

		{path: "cluster.disk.minfree", into: amount{&n.MinFree, 0, 1 << 40}, def: "128MiB",
			doc: "free bytes under cluster.datadir without which the node does not lead and is not ready; a quarter of it keeps it in Raft; 0 never asks"},
		{path: "cluster.disk.ballast", into: amount{&n.Ballast, 0, 16 << 30}, def: "64MiB",
			doc: "a file in cluster.datadir that is given back when the node is started on a full disk; 0 none"},
	}
}

// debugAddr checks http.debug.addr.
func debugAddr(s string) string {
	if s == "none" {
		return ""
	}
	if want := hostPort(s); want != "" {
		return want + ", or none"
	}
	return ""
}

// hostPortOptional checks host or host:port.
func hostPortOptional(s string) string {
	if s == "" || strings.ContainsAny(s, "/ ") {
		return "a host, or host:port"
	}
	if strings.Contains(s, ":") && !strings.HasSuffix(s, "]") && strings.Count(s, ":") == 1 {
		return hostPort(s)
	}
	return ""
}

// labelBound is the length of a DNS label (RFC 1035, section 2.3.4).
const labelBound = 63

// label checks a name for people and metrics.
func label(s string) string {
	if s == "" || len(s) > labelBound || strings.ContainsFunc(s, notInLabel) {
		return "1 to 63 letters, digits, dots, dashes or underscores"
	}
	return ""
}

func notInLabel(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
}

// labelOf makes a label of whatever the host is called.
func labelOf(s string) string {
	s = strings.Map(func(r rune) rune {
		if notInLabel(r) {
			return '-'
		}
		return r
	}, s)
	if s == "" {
		return "node"
	}
	return s[:min(len(s), labelBound)]
}

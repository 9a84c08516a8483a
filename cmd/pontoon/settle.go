package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/pontoon-registry/pontoon/api"
)

// settle decides what follows from several keys together: which driver, which
// login, which TLS, and the defaults that depend on others.
func (c *Config) settle(k *keyring) {
	c.Storage.Driver = k.choose("storage", "filesystem", "filesystem", "s3")
	c.Auth.Kind = k.choose("auth", "", "none", "htpasswd")
	c.HTTP.TLS.Mode = k.chooseTLS(c.HTTP.Addr)
	if c.Storage.Filesystem.RootDirectory == "" {
		c.Storage.Filesystem.RootDirectory = filepath.Join(c.Cluster.DataDir, "storage")
	}
	if c.Validation.Platforms == "none" {
		c.Validation.SparseIndexes = true
	}
	c.settleBackup(k)
	n := &c.Cluster
	for i, addr := range n.Join {
		n.Join[i] = withPort(addr, "7946")
	}
	if n.Expect == 0 && !k.named("cluster.expect") {
		n.Expect = max(1, int64(len(n.Join)))
	}
	if n.Alone() && !k.named("http.drain.delay") {
		c.HTTP.DrainDelay = 0 // no balancer has to see a node alone go
	}
	if !n.Alone() {
		n.Addr = orText(n.Addr, ":7947")
		n.GossipAddr = orText(n.GossipAddr, ":7946")
	}
}

func orText(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func withPort(addr, port string) string {
	bare := strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	if strings.Count(addr, ":") == 1 || strings.Contains(addr, "]:") {
		return addr
	}
	if strings.Contains(bare, ":") {
		return "[" + bare + "]:" + port
	}
	return addr + ":" + port
}

// choose answers which of a section's alternatives is meant: the one that the environment names outright
// (REGISTRY_STORAGE=s3), else the only one that anything speaks of.
func (k *keyring) choose(section, def string, options ...string) string {
	said, _ := k.byPath[section].into.plain().(string)
	where := k.source[section]
	if said != "" && where == envName(section) {
		return said
	}
	var meant []string
	for _, option := range options {
		if option == said || k.named(join(section, option)) {
			meant = append(meant, option)
		}
	}
	switch len(meant) {
	case 0:
		return def
	case 1:
		return meant[0]
	}
	first, second := meant[0], meant[1]
	k.problem(section, "both %s (%s) and %s (%s) are named, expected one: set %s to choose",
		first, orText(k.source[join(section, first)], where), second, orText(k.source[join(section, second)], where),
		envName(section)[1:])
	return first
}

func envName(path string) string {
	return "$" + envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// chooseTLS answers none, files or issued.
func (k *keyring) chooseTLS(addr string) string {
	said, _ := k.byPath["http.tls"].into.plain().(string)
	files := k.named("http.tls.certificate") || k.named("http.tls.key")
	switch {
	case said == "none" && files && k.source["http.tls"] != envName("http.tls"):
		k.problem("http.tls", "both none and a certificate (%s) are named, expected one",
			orText(k.source["http.tls.certificate"], k.source["http.tls.key"]))
	case said == "none":
		return "none"
	case files:
		return "files"
	case k.named("http.tls.names") || !api.Loopback(addr):
		return "issued"
	}
	return "none"
}

// check refuses what cannot work together, with the sentence that mends it.
func (c *Config) check(k *keyring) {
	c.checkStorage(k)
	c.checkHTTP(k)
	c.checkCluster(k)
	c.checkGC(k)
	c.checkBackup(k)
	if c.Auth.Kind == "htpasswd" && c.Auth.Path == "" {
		k.problem("auth.htpasswd.path", "is missing: name the file, made with `htpasswd -Bc FILE USER`")
	}
}

func (c *Config) checkStorage(k *keyring) {
	s3 := c.Storage.S3
	if c.Storage.Driver != "s3" {
		return
	}
	if s3.Bucket == "" {
		k.problem("storage.s3.bucket", "is missing: name the bucket that holds the layers")
	}
	if (s3.AccessKey == "") != (s3.SecretKey == "") {
		k.problem("storage.s3.accesskey", "accesskey and secretkey go together: set both, or none for the SDK's own chain")
	}
	if s3.Bucket != "" && (s3.AccessKey == "") == (s3.SecretKey == "") {
		for _, err := range flatten(s3.config().Validate()) {
			k.problem("storage.s3", "%s", strings.TrimPrefix(err.Error(), "s3: ")) // the driver owns its rules
		}
	}
}

func (c *Config) checkHTTP(k *keyring) {
	t := c.HTTP.TLS
	if t.Mode == "files" && (t.Certificate == "" || t.Key == "") {
		k.problem("http.tls", "certificate and key go together: set both")
	}
	if t.Mode == "files" && len(t.Names) > 0 {
		k.problem("http.tls.names", "are for a certificate that the cluster issues, but certificate and key are set: drop one of them")
	}
	if t.ClientAuth != "" && len(t.ClientCAs) == 0 {
		k.problem("http.tls.clientauth", "needs http.tls.clientcas")
	}
	if t.Mode == "none" && len(t.ClientCAs) > 0 {
		k.problem("http.tls.clientcas", "need TLS: set http.tls.certificate and http.tls.key")
	}
	// api owns the rule; the cluster's own certificate counts as TLS.
	err := api.Exposure{
		Addr: c.HTTP.Addr, TLS: t.Mode != "none", TLSNone: t.Mode == "none" && k.named("http.tls"),
		Login: c.Auth.Kind == "htpasswd", LoginNone: c.Auth.Kind == "none",
	}.Check()
	for _, err := range flatten(err) {
		k.problems = append(k.problems, problem{Where: k.source["http.addr"], Text: err.Error()})
	}
	if c.HTTP.DebugAddr == c.HTTP.Addr && !strings.HasSuffix(c.HTTP.Addr, ":0") {
		k.problem("http.debug.addr", "is the same as http.addr, expected another port, or none")
	}
}

// flatten lists the errors that were joined.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	return []error{err}
}

func (c *Config) checkCluster(k *keyring) {
	n := c.Cluster
	if t := n.TLS; k.named("cluster.tls") && (t.Certificate == "" || t.Key == "" || t.CA == "" || len(t.Names) == 0) {
		k.problem("cluster.tls", "certificate, key, ca and names go together: set all four")
	}
	if n.DeadForget < n.DeadReplace {
		k.problem("cluster.dead.forget", "is %v, must be at least cluster.dead.replace, %v", n.DeadForget, n.DeadReplace)
	}
	if n.Alone() {
		return
	}
	if n.SecretFile == "" {
		k.problem("cluster.secretfile", "is missing: nodes trust each other by a shared secret; make it once with "+
			"`pontoon cluster secret /etc/pontoon/secret`, copy that file to every node, and name it here")
	}
	if len(n.Join) == 0 {
		k.problem("cluster.join", "is missing: cluster.expect is %d, so name the nodes to join", n.Expect)
	}
	if n.Expect == 1 {
		k.problem("cluster.expect", "is 1 beside a join list: say how many nodes found the cluster, such as 3")
	}
	if c.Storage.Driver == "filesystem" && !c.Storage.Filesystem.Shared {
		k.problem("storage", "%s", fmt.Sprintf("a directory of this node alone (%s) cannot hold the layers of a cluster: use storage.s3, "+
			"or, if every node mounts that same directory, say storage.filesystem.shared: true", c.Storage.Filesystem.RootDirectory))
	}
}

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// laptop is a host for tests, with an environment.
func laptop(env ...string) host {
	return host{env: append([]string{"HOME=/home/ada"}, env...), euid: 1000, name: "laptop",
		exit: func(code int) { panic(fmt.Sprintf("the process ends with %d", code)) }}
}

// problems answers what parseConfig finds wrong, one a line.
func problems(t *testing.T, body string, env ...string) string {
	t.Helper()
	_, err := parseConfig("p.yml", []byte(body), laptop(env...))
	if err == nil {
		return ""
	}
	var bad *configError
	if !errors.As(err, &bad) {
		t.Fatalf("error is a %T, expected a configError: %s", err, err)
	}
	var lines []string
	for _, p := range bad.problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

func mustParse(t *testing.T, body string, env ...string) *loaded {
	t.Helper()
	path := "p.yml"
	if body == "" {
		path = ""
	}
	c, err := parseConfig(path, []byte(body), laptop(env...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWithoutAnyConfigurationANodeIsAloneOnLoopback(t *testing.T) {
	c := mustParse(t, "")
	if c.HTTP.Addr != "127.0.0.1:5000" || c.HTTP.TLS.Mode != "none" || c.Auth.Kind != "" || !c.Cluster.Alone() || c.Cluster.Addr != "" {
		t.Errorf("got %+v", c.Config)
	}
	if want := "/home/ada/.local/share/pontoon/storage"; c.Storage.Driver != "filesystem" || c.Storage.Filesystem.RootDirectory != want {
		t.Errorf("got store %s in %s, expected filesystem in %s", c.Storage.Driver, c.Storage.Filesystem.RootDirectory, want)
	}
	if c.HTTP.DrainDelay != 0 {
		t.Errorf("a node alone waits %s for a balancer that is not there", c.HTTP.DrainDelay)
	}
	root, err := parseConfig("", nil, host{euid: 0})
	if err != nil || root.Cluster.DataDir != "/var/lib/pontoon" {
		t.Errorf("as root: got %+v, %v", root, err)
	}
	if x := mustParse(t, "", "XDG_DATA_HOME=/xdg"); x.Cluster.DataDir != "/xdg/pontoon" {
		t.Errorf("with XDG_DATA_HOME: got %s", x.Cluster.DataDir)
	}
}

const threeNodes = `version: 0.1
storage: {s3: {bucket: layers, region: eu-central-1}}
http: {addr: ":5000", tls: none}
auth: none
cluster: {join: [a, "b:7000", 2001:db8::1], secretfile: /etc/pontoon/secret}
`

func TestThreeNodesNeedJoinListBucketAndSecret(t *testing.T) {
	c := mustParse(t, threeNodes)
	if want := []string{"a:7946", "b:7000", "[2001:db8::1]:7946"}; !reflect.DeepEqual(c.Cluster.Join, want) {
		t.Errorf("got join %q, expected %q", c.Cluster.Join, want)
	}
	if c.Cluster.Expect != 3 || c.Cluster.Addr != ":7947" || c.Cluster.GossipAddr != ":7946" || c.HTTP.DrainDelay != 5*time.Second {
		t.Errorf("got %+v", c.Cluster)
	}
}

func TestWhatIsWrongIsNamedWithPlaceKeyAndRemedy(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		env  []string
		want string
	}{
		"unknown key":         {"version: 0.1\nhttp:\n  adr: :5000\n", nil, "p.yml:3: http.adr: unknown key (did you mean http.addr?)"},
		"unknown section":     {"version: 0.1\nstorrage: {}\n", nil, "p.yml:2: storrage: unknown key (did you mean storage?)"},
		"wrong section":       {"version: 0.1\nstorage: {bucket: x}\n", nil, "p.yml:2: storage.bucket: unknown key (did you mean storage.s3.bucket?)"},
		"twice":               {"version: 0.1\nhttp: {addr: a:1, addr: b:2}\n", nil, "p.yml:2: http.addr: is there twice"},
		"no version":          {"log: {level: info}\n", nil, `p.yml: version: is missing, expected "version: 0.1" as the first line`},
		"wrong version":       {"version: 2\n", nil, `p.yml:1: version: got "2", expected 0.1`},
		"no port":             {"version: 0.1\nhttp: {addr: localhost}\n", nil, `p.yml:2: http.addr: got "localhost", expected host:port with a port of 0 to 65535`},
		"no unit":             {"version: 0.1\nhttp:\n  draintimeout: 30\n", nil, `p.yml:3: http.draintimeout: got "30", expected a duration from 1s to 24h, such as 30s or 1h`},
		"duration too long":   {"version: 0.1\ngc: {grace: 9000h}\n", nil, `p.yml:2: gc.grace: got "9000h", expected a duration from 1s to 720h`},
		"even voters":         {"version: 0.1\ncluster: {voters: 4}\n", nil, `p.yml:2: cluster.voters: got "4", expected an odd number from 1 to 9`},
		"text for section":    {"version: 0.1\nhttp: yes\n", nil, `p.yml:2: http: got "yes", expected a section with keys such as addr, host, relativeurls`},
		"section for text":    {"version: 0.1\nhttp: {addr: {a: b}}\n", nil, "p.yml:2: http.addr: got a section, expected text"},
		"wrong scalar":        {"version: 0.1\nauth: token\n", nil, `p.yml:2: auth: got "token", expected none or htpasswd`},
		"refused":             {"version: 0.1\nnotifications:\n  endpoints: []\n", nil, "p.yml:2: notifications: not supported: webhooks come later"},
		"refused driver":      {"version: 0.1\nstorage: {gcs: {bucket: x}}\n", nil, "p.yml:2: storage.gcs: not supported: use storage.filesystem"},
		"refused by variable": {"", []string{"REGISTRY_PROXY_REMOTEURL=https://x"}, "$REGISTRY_PROXY_REMOTEURL: proxy: not supported"},
		"bad variable":        {"", []string{"REGISTRY_HTTP_ADDR=5000"}, `$REGISTRY_HTTP_ADDR: http.addr: got "5000", expected host:port`},
		"gap in a list":       {"", []string{"REGISTRY_CLUSTER_JOIN_1=b"}, "$REGISTRY_CLUSTER_JOIN_1: cluster.join: got entry 1 of a list with 0 entries"},
		"value and file":      {"", []string{"REGISTRY_HTTP_HOST=x", "REGISTRY_HTTP_HOST_FILE=/x"}, "$REGISTRY_HTTP_HOST_FILE: both it and $REGISTRY_HTTP_HOST are set"},
		"no such file":        {"", []string{"REGISTRY_HTTP_HOST_FILE=/nowhere/x"}, "$REGISTRY_HTTP_HOST_FILE: http.host: open /nowhere/x"},

		"two drivers": {"version: 0.1\nstorage: {filesystem: {}, s3: {bucket: x}}\n", nil,
			"p.yml:2: storage: both filesystem (p.yml:2) and s3 (p.yml:2) are named, expected one: set REGISTRY_STORAGE to choose"},
		"no bucket":      {"version: 0.1\nstorage: s3\n", nil, "storage.s3.bucket: is missing"},
		"half a key":     {"version: 0.1\nstorage: {s3: {bucket: b, accesskey: k}}\n", nil, "accesskey and secretkey go together"},
		"no certificate": {"version: 0.1\nhttp: {tls: {key: k}}\n", nil, "certificate and key go together"},
		"beyond loopback without login": {"version: 0.1\nhttp: {addr: ':5000', tls: none}\n", nil,
			"p.yml:2: http.addr :5000 can be reached from other machines, so anybody there could push and delete"},
		"join without secret": {"version: 0.1\nstorage: {s3: {bucket: x}}\ncluster: {join: [a, b]}\n", nil,
			"cluster.secretfile: is missing: nodes trust each other by a shared secret"},
		"join without shared store": {"version: 0.1\ncluster: {join: [a, b], secretfile: s}\n", nil,
			"storage: a directory of this node alone"},
		"one to join":         {"version: 0.1\nstorage: {s3: {bucket: x}}\ncluster: {join: [a], secretfile: s}\n", nil, "cluster.expect: is 1 beside a join list"},
		"htpasswd without it": {"version: 0.1\nauth: htpasswd\n", nil, "auth.htpasswd.path: is missing"},
		"two documents":       {"version: 0.1\n---\nversion: 0.1\n", nil, "more than one YAML document"},
		"no YAML":             {"version: [\n", nil, "p.yml: yaml: line"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := problems(t, test.body, test.env...); !strings.Contains(got, test.want) {
				t.Errorf("got\n%s\nexpected\n%s", got, test.want)
			}
		})
	}
}

// A line that refuses a section covers all below it, so it must go when a key of the section is taken.
func TestNoKeyIsTakenBelowOneThatIsNot(t *testing.T) {
	table := keysOf(new(Config), laptop())
	for _, other := range table {
		for _, k := range table {
			if other.class != honoured && k.class == honoured && strings.HasPrefix(k.path, other.path+".") {
				t.Errorf("%s is taken, and %s is not: %s", k.path, other.path, other.doc)
			}
		}
	}
}

func TestAnOperatorsOwnAuthorityIsNamedWholeOrNotAtAll(t *testing.T) {
	c := mustParse(t, "version: 0.1\ncluster:\n  tls: {certificate: /c, key: /k, ca: /a, names: ['*.p.example.com']}\n")
	if want := (NodeTLSConfig{"/c", "/k", "/a", []string{"*.p.example.com"}}); !reflect.DeepEqual(c.Cluster.TLS, want) {
		t.Errorf("got %+v", c.Cluster.TLS)
	}
	c = mustParse(t, "", "REGISTRY_CLUSTER_TLS_CERTIFICATE=/c", "REGISTRY_CLUSTER_TLS_KEY=/k", "REGISTRY_CLUSTER_TLS_CA=/a", "REGISTRY_CLUSTER_TLS_NAMES=[p]")
	if c.Cluster.TLS.CA != "/a" {
		t.Errorf("got %+v from the environment", c.Cluster.TLS)
	}
	want := "p.yml:2: cluster.tls: certificate, key, ca and names go together: set all four"
	if got := problems(t, "version: 0.1\ncluster: {tls: {certificate: /c, key: /k, ca: /a}}\n"); got != want {
		t.Errorf("got\n%s\nexpected\n%s", got, want)
	}
}

func TestEveryProblemIsNamedNotOnlyTheFirst(t *testing.T) {
	got := problems(t, "version: 0.1\nhttp: {adr: x, addr: y}\nredis: {addr: z}\nproxy: {}\n")
	if n := strings.Count(got, "\n") + 1; n != 3 {
		t.Errorf("got %d problems, expected 3:\n%s", n, got)
	}
}

func TestNeedlessKeysAreANoticeThatSaysWhy(t *testing.T) {
	c := mustParse(t, "version: 0.1\nhttp: {secret: abc}\nstorage:\n  cache: {blobdescriptor: redis}\n  filesystem: {}\n",
		"REGISTRY_REDIS_ADDR=localhost:6379", "REGISTRY_TYPO=1", "REGISTRY_PORT=tcp://10.0.0.1:5000", "REGISTRY_SERVICE_HOST=10.0.0.1",
		"REGISTRY_PORT_5000_TCP_ADDR=10.0.0.1", "REGISTRY_STORAGE_S3_CHUNKSIZE=10")
	got := strings.Join(c.Notices, "\n")
	for _, want := range []string{
		"p.yml:2: http.secret: needless here: uploads are in the ledger",
		"p.yml:4: storage.cache: needless here",
		"$REGISTRY_REDIS_ADDR: redis: needless here",
		"$REGISTRY_TYPO: is no setting of Pontoon and was ignored",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("expected %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "PORT") || strings.Contains(got, "SERVICE") || strings.Contains(got, "abc") {
		t.Errorf("Kubernetes' variables or a secret are in\n%s", got)
	}
}

func TestTheEnvironmentOverridesTheFile(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "key")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := mustParse(t, "version: 0.1\nstorage: {filesystem: {rootdirectory: /x}}\nlog: {fields: {a: b}}\nhttp: {headers: {X-A: [b]}}\n",
		"REGISTRY_STORAGE=s3", "REGISTRY_STORAGE_S3_REGION=r", "REGISTRY_STORAGE_S3_BUCKET=layers", "REGISTRY_STORAGE_S3_ACCESSKEY=AKIA",
		"REGISTRY_STORAGE_S3_SECRETKEY_FILE="+secret, "REGISTRY_STORAGE_S3_FORCEPATHSTYLE=true",
		"REGISTRY_CLUSTER_JOIN_10=k", "REGISTRY_CLUSTER_JOIN=[a,b,c,d,e,f,g,h,i]", "REGISTRY_CLUSTER_JOIN_2=C", "REGISTRY_CLUSTER_JOIN_9=j",
		"REGISTRY_CLUSTER_EXPECT=3", "REGISTRY_CLUSTER_SECRETFILE=/s", "REGISTRY_AUTH=htpasswd", "REGISTRY_AUTH_HTPASSWD_PATH=/h",
		"REGISTRY_LOG_FIELDS_SERVICE=registry", "REGISTRY_HTTP_HEADERS_x-a=['c', 'd']", "REGISTRY_HTTP_DRAIN={delay: 7s}",
		"REGISTRY_HTTP_TLS=none", "REGISTRY_LOG_LEVEL=debug")
	if c.Storage.Driver != "s3" || c.Storage.S3.Bucket != "layers" || c.Storage.S3.SecretKey != "s3cret" || !c.Storage.S3.ForcePathStyle {
		t.Errorf("got storage %+v", c.Storage)
	}
	if j := c.Cluster.Join; len(j) != 11 || j[2] != "C:7946" || j[10] != "k:7946" {
		t.Errorf("got join %q", j)
	}
	if c.Auth.Kind != "htpasswd" || c.Auth.Path != "/h" || c.Log.Level != "debug" || c.HTTP.DrainDelay != 7*time.Second {
		t.Errorf("got %+v %+v", c.Auth, c.HTTP)
	}
	if got := c.HTTP.Headers; len(got) != 1 || !reflect.DeepEqual(got["x-a"], []string{"c", "d"}) {
		t.Errorf("got headers %v", got)
	}
	if got := c.Log.fields(); !reflect.DeepEqual(got, map[string]string{"a": "b", "SERVICE": "registry"}) {
		t.Errorf("got fields %v", got)
	}
}

func TestDistributionsOwnConfigurationIsTaken(t *testing.T) {
	c := mustParse(t, `version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
    maxthreads: 100
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
  tls:
    certificate: /certs/tls.crt
    key: /certs/tls.key
auth:
  htpasswd:
    realm: basic-realm
    path: /etc/registry
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
`)
	if c.HTTP.TLS.Mode != "files" || c.Auth.Kind != "htpasswd" || c.Storage.Filesystem.RootDirectory != "/var/lib/registry" || len(c.Notices) != 3 {
		t.Errorf("got %+v with notices %q", c.Config, c.Notices)
	}
}

func TestPrintedConfigurationMeansTheSame(t *testing.T) {
	for _, body := range []string{"version: 0.1\n", threeNodes, "version: 0.1\nauth: {htpasswd: {path: /h}}\nlog: {fields: {a: b}}\n" +
		"http: {addr: ':443', headers: {X-A: [b, c]}, proxyprotocol: {trusted: [10.0.0.0/8]}, tls: {names: [r.example.com]}}\n"} {
		c := mustParse(t, body)
		printed, err := c.yaml()
		if err != nil {
			t.Fatal(err)
		}
		if again := mustParse(t, string(printed)); !reflect.DeepEqual(again.Config, c.Config) {
			t.Errorf("got\n%+v\nexpected\n%+v\nfrom\n%s", again.Config, c.Config, printed)
		}
	}
}

func TestSecretsArePrintedAndReportedNowhere(t *testing.T) {
	body := "version: 0.1\nstorage: {s3: {bucket: b, region: r, accesskey: HUSH1, secretkey: HUSH2, proxy: 'http://u:HUSH3@p:1'}}\n"
	c := mustParse(t, body)
	printed, err := c.yaml()
	if err != nil || strings.Contains(string(printed), "HUSH") || !strings.Contains(string(printed), redacted) {
		t.Errorf("got %v\n%s", err, printed)
	}
	if got := problems(t, "version: 0.1\nstorage: {s3: {bucket: b, secretkey: [HUSH]}}\n"); strings.Contains(got, "HUSH") {
		t.Errorf("got %s", got)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(threeNodes))
	f.Add([]byte("version: 0.1\nhttp: &a {tls: none, addr: 127.0.0.1:1}\nstorage: {filesystem: }\nlog: {fields: {a: b}}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("version: 0.1\nauth: {htpasswd: {path: x}}\nhttp: {headers: {A: [b]}}\nredis: {a: 1}\nproxy: 1\n"))
	f.Fuzz(func(t *testing.T, body []byte) { settles(t, body, laptop()) })
}

func FuzzEnv(f *testing.F) {
	f.Add("HTTP_ADDR", "127.0.0.1:0")
	f.Add("CLUSTER_JOIN_0", "a")
	f.Add("HTTP_HEADERS_X-A", "[a, b]")
	f.Add("STORAGE", "{s3: {bucket: b}}")
	f.Add("HTTP_TLS_CLIENTCAS", "&a [*a]")
	f.Add("LOG_LEVEL_FILE", "/dev/null")
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.HasSuffix(name, "_FILE") {
			return // it would read files of this machine
		}
		settles(t, []byte("version: 0.1\n"), laptop(envPrefix+name+"="+value))
	})
}

// settles asserts that a configuration is refused with a configError, or can be printed and read again.
func settles(t *testing.T, body []byte, h host) {
	c, err := parseConfig("p.yml", body, h)
	var bad *configError
	if err != nil && (!errors.As(err, &bad) || len(bad.problems) == 0) {
		t.Fatalf("error is a %T: %s", err, err)
	}
	if err != nil {
		return
	}
	printed, err := c.yaml()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(printed), redacted) {
		return
	}
	again, err := parseConfig("printed.yml", printed, laptop())
	if err != nil {
		t.Fatalf("printed configuration is refused: %s\n%s", err, printed)
	}
	if !reflect.DeepEqual(again.Config, c.Config) {
		t.Fatalf("printed configuration differs:\n%+v\n%+v\n%s", again.Config, c.Config, printed)
	}
}

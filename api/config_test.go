package api

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func valid(t *testing.T) Config {
	t.Helper()
	health, err := NewHealth(HealthConfig{Node: &node{}})
	if err != nil {
		t.Fatal(err)
	}
	return Config{Handler: http.HandlerFunc(ok), Health: health, Metrics: NewMetrics()}
}

func TestConfigNamesFieldAndBound(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"Handler is required":                                            func(c *Config) { c.Handler = nil },
		"Health is required":                                             func(c *Config) { c.Health = nil },
		"Metrics is required":                                            func(c *Config) { c.Metrics = nil },
		`http.addr "5000": expected host:port`:                           func(c *Config) { c.Addr = "5000" },
		`http.debug.addr "off": expected host:port or none`:              func(c *Config) { c.DebugAddr = "off" },
		`http.prefix "/registry": not supported`:                         func(c *Config) { c.Prefix = "/registry" },
		`http.host "registry.example.com": expected http:// or https://`: func(c *Config) { c.Host = "registry.example.com" },
		`http.host "https://a/b": expected`:                              func(c *Config) { c.Host = "https://a/b" },
		`http.headers: "a b" is not a header name`:                       func(c *Config) { c.Headers = http.Header{"a b": {"c"}} },
		"http.headers: content-length is set by the registry":            func(c *Config) { c.Headers = http.Header{"content-length": {"1"}} },
		"http.headers: the value of X-A has control characters":          func(c *Config) { c.Headers = http.Header{"X-A": {"a\r\nb"}} },
		"http.headertimeout: 1ms is not between 1s and 5m0s":             func(c *Config) { c.HeaderTimeout = time.Millisecond },
		"http.idletimeout: 2h0m0s is not between":                        func(c *Config) { c.IdleTimeout = 2 * time.Hour },
		"http.idlebody: -1s is not between":                              func(c *Config) { c.IdleBody = -time.Second },
		"http.requesttimeout: 1ns is not between":                        func(c *Config) { c.RequestTimeout = 1 },
		"http.maxheaderbytes: 1 is not between 4096 and 1048576":         func(c *Config) { c.MaxHeaderBytes = 1 },
		"http.maxconnections: 2 is not between 16 and 1000000":           func(c *Config) { c.MaxConnections = 2 },
		"http.draindelay: 1h0m0s is not between 0s and 5m0s":             func(c *Config) { c.DrainDelay = time.Hour },
		"http.draintimeout: -1s is not between 0s and 24h0m0s":           func(c *Config) { c.DrainTimeout = -time.Second },
		`mount "/v2/_x": expected a handler and a path outside /v2`:      func(c *Config) { c.Mounts = map[string]http.Handler{"/v2/_x": http.HandlerFunc(ok)} },
		"http.tls: no certificate: set http.tls.certificate":             func(c *Config) { c.TLS = &TLSConfig{} },
	} {
		c := valid(t)
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := New(valid(t)); err != nil {
		t.Error(err)
	}
}

func TestLocationsAreRelativeUnlessAHostIsConfigured(t *testing.T) {
	for want, c := range map[string]Config{
		"":                        {RelativeURLs: true, Host: "https://r.example.com"},
		"https://r.example.com":   {Host: "https://r.example.com/"},
		"https://r.example.com:1": {Host: "https://r.example.com:1"},
	} {
		if got := c.Base(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := (Config{}).Base(); got != "" {
		t.Error(got)
	}
}

func TestBeyondLoopbackTLSAndLoginAreDemandedOrRefusedAloud(t *testing.T) {
	for name, c := range map[string]struct {
		e    Exposure
		want []string
	}{
		"laptop":         {Exposure{Addr: "127.0.0.1:5000"}, nil},
		"localhost":      {Exposure{Addr: "localhost:5000"}, nil},
		"IPv6 loopback":  {Exposure{Addr: "[::1]:5000"}, nil},
		"mapped":         {Exposure{Addr: "[::ffff:127.0.0.1]:5000"}, nil},
		"all interfaces": {Exposure{Addr: ":5000"}, []string{"http.addr :5000 can be reached", "`http.tls: none`", "`auth: none`"}},
		"unspecified":    {Exposure{Addr: "0.0.0.0:5000", TLS: true}, []string{"`auth: none`"}},
		"name":           {Exposure{Addr: "registry.example.com:5000", Login: true}, []string{"`http.tls: none`"}},
		"both":           {Exposure{Addr: "10.0.0.1:5000", TLS: true, Login: true}, nil},
		"both aloud":     {Exposure{Addr: "10.0.0.1:5000", TLSNone: true, LoginNone: true}, nil},
		"broken":         {Exposure{Addr: "5000", TLSNone: true}, []string{"`auth: none`"}},
	} {
		err := c.e.Check()
		if (err == nil) != (len(c.want) == 0) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", name, err, w)
			}
		}
		if err != nil && c.e.TLS && strings.Contains(err.Error(), "http.tls") {
			t.Errorf("%s: asks for the TLS that is there", name)
		}
	}
}

func TestRoutesAreReadFromTheirEnd(t *testing.T) {
	for path, want := range map[string]route{
		"/":                              {handler: "health"},
		"/readyz":                        {handler: "health"},
		"/v2":                            {handler: "base"},
		"/v2/":                           {handler: "base"},
		"/v2/_catalog":                   {handler: "catalog"},
		"/v2/a/tags/list":                {"tags", "a", ""},
		"/v2/a/b/manifests/v1":           {"manifest", "a/b", "v1"},
		"/v2/a/blobs/sha256:00":          {"blob", "a", "sha256:00"},
		"/v2/a/referrers/sha256:00":      {"referrers", "a", "sha256:00"},
		"/v2/a/blobs/uploads/":           {"blob_upload", "a", ""},
		"/v2/a/blobs/uploads":            {"blob_upload", "a", ""},
		"/v2/a/blobs/uploads/id":         {"blob_upload_chunk", "a", "id"},
		"/v2/a/blobs/uploads/id/state/1": {"blob_upload_chunk", "a", "id/state/1"},
		"/v2/blobs/uploads/manifests/x":  {"manifest", "blobs/uploads", "x"},
		"/v2/manifests/tags/list":        {"tags", "manifests", ""},
		"/v2/a":                          {handler: "other"},
		"/v2x":                           {handler: "other"},
		"/favicon.ico":                   {handler: "other"},
	} {
		if got := classify(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
}

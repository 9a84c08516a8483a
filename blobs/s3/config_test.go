package s3

import (
	"strings"
	"testing"
	"time"
)

func TestConfigErrorsNameFieldAndBound(t *testing.T) {
	good := Config{Region: "eu-central-1", Bucket: "layers"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"bucket":                     func(c *Config) { c.Bucket = "" },
		"region: must be set":        func(c *Config) { c.Region = "" },
		"accesskey and secretkey":    func(c *Config) { c.AccessKey = "a" },
		"sessiontoken: needs":        func(c *Config) { c.SessionToken = "a" },
		"keyid: needs encrypt":       func(c *Config) { c.KeyID = "a" },
		"checksums \"none\"":         func(c *Config) { c.Checksums = "none" },
		"memory 1: must be 8388608":  func(c *Config) { c.Memory = 1 },
		"maxcalls -1: must be 1":     func(c *Config) { c.MaxCalls = -1 },
		"maxattempts 21: must be 1":  func(c *Config) { c.MaxAttempts = 21 },
		"calltimeout 1ms: must be":   func(c *Config) { c.CallTimeout = time.Millisecond },
		"readtimeout 1h0m0s: must":   func(c *Config) { c.ReadTimeout = time.Hour },
		"useragent: must be one":     func(c *Config) { c.UserAgent = "a\nb" },
		"rootdirectory \"a/../b\"":   func(c *Config) { c.RootDirectory = "a/../b" },
		"regionendpoint: must be":    func(c *Config) { c.RegionEndpoint = "ftp://x" },
		"proxy: must be http":        func(c *Config) { c.Proxy = "user:secret@host" },
		"rootdirectory: at most 256": func(c *Config) { c.RootDirectory = strings.Repeat("a", 257) },
	} {
		c := good
		change(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, want %q in it", err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret@") {
			t.Errorf("Validate tells a password: %v", err)
		}
	}
}

func TestEndpointsWithoutSchemeAreHTTPSUnlessInsecure(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{RegionEndpoint: "s3.example:9000"}, "https://s3.example:9000"},
		{Config{RegionEndpoint: "s3.example:9000", Insecure: true}, "http://s3.example:9000"},
		{Config{RegionEndpoint: "http://s3.example:9000"}, "http://s3.example:9000"},
		{Config{Region: "eu-central-1"}, ""},
	} {
		if got := c.config.endpoint(); got != c.want {
			t.Errorf("endpoint() = %q, want %q", got, c.want)
		}
	}
}

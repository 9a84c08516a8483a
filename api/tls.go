package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// TLSConfig is the registry listener's TLS. Keys of the configuration file are distribution's, below http.tls.
type TLSConfig struct {
	// CertFile and KeyFile are PEM files (certificate, key): the leaf first, then intermediates. They are read
	// again when they change and on Reload. Both or neither.
	CertFile, KeyFile string
	// GetCertificate answers certificates that the cluster issued. It is used when there are no files.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCAs are PEM files; with one or more, clients need a certificate of one of them (clientcas).
	ClientCAs []string
	// ClientAuth is require-and-verify-client-cert, the default with ClientCAs, or verify-client-cert-if-given.
	ClientAuth string
	// MinVersion is tls1.2, the default, or tls1.3 (minimumtls).
	MinVersion string
	// CipherSuites are Go's names of suites (ciphersuites); those known to be insecure are refused. They bind TLS 1.2: of
	// the suites of TLS 1.3 all are sound and Go chooses. Default: Go's own.
	CipherSuites []string
	// ReloadInterval is how often the files are looked at. Default 10 s; 1 s to 1 h.
	ReloadInterval time.Duration
}

const (
	clientRequired = "require-and-verify-client-cert"
	clientIfGiven  = "verify-client-cert-if-given"
)

// Validate names every field that is out of its bounds. It opens no file.
func (c TLSConfig) Validate() error {
	var errs []error
	switch files := c.CertFile != "" && c.KeyFile != ""; {
	case !files && (c.CertFile != "" || c.KeyFile != ""):
		errs = append(errs, errors.New("http.tls: certificate and key are given together or not at all"))
	case !files && c.GetCertificate == nil:
		errs = append(errs, errors.New("http.tls: no certificate: set http.tls.certificate and http.tls.key"))
	}
	switch c.ClientAuth {
	case "":
	case clientRequired, clientIfGiven:
		if len(c.ClientCAs) == 0 {
			errs = append(errs, fmt.Errorf("http.tls.clientauth %s: needs http.tls.clientcas", c.ClientAuth))
		}
	default:
		errs = append(errs, fmt.Errorf("http.tls.clientauth %q: expected %s or %s", c.ClientAuth, clientRequired, clientIfGiven))
	}
	if _, err := c.minVersion(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.suites(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, between("http.tls.reloadinterval", or(c.ReloadInterval, defaultReload), time.Second, time.Hour))
	return errors.Join(errs...)
}

const defaultReload = 10 * time.Second

func (c TLSConfig) minVersion() (uint16, error) {
	switch c.MinVersion {
	case "", "tls1.2":
		return tls.VersionTLS12, nil
	case "tls1.3":
		return tls.VersionTLS13, nil
	case "tls1.0", "tls1.1":
		return 0, fmt.Errorf("http.tls.minimumtls %s: refused, it is broken (RFC 8996); expected tls1.2 or tls1.3", c.MinVersion)
	}
	return 0, fmt.Errorf("http.tls.minimumtls %q: expected tls1.2 or tls1.3", c.MinVersion)
}

func (c TLSConfig) suites() ([]uint16, error) {
	var ids []uint16
	for _, name := range c.CipherSuites {
		byName := func(s *tls.CipherSuite) bool { return s.Name == strings.TrimSpace(name) }
		if i := slices.IndexFunc(tls.CipherSuites(), byName); i >= 0 {
			ids = append(ids, tls.CipherSuites()[i].ID)
			continue
		}
		if slices.ContainsFunc(tls.InsecureCipherSuites(), byName) {
			return nil, fmt.Errorf("http.tls.ciphersuites: %s is known to be insecure", name)
		}
		return nil, fmt.Errorf("http.tls.ciphersuites: %q is no suite that this release knows", name)
	}
	return ids, nil
}

func (c TLSConfig) clientAuth() tls.ClientAuthType {
	switch {
	case len(c.ClientCAs) == 0:
		return tls.NoClientCert
	case c.ClientAuth == clientIfGiven:
		return tls.VerifyClientCertIfGiven
	}
	return tls.RequireAndVerifyClientCert
}

// load reads all files and answers what new connections use.
func (c TLSConfig) load() (*tls.Config, error) {
	minimum, err := c.minVersion()
	if err != nil {
		return nil, err
	}
	suites, err := c.suites()
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{
		MinVersion:     minimum,
		CipherSuites:   suites,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: c.GetCertificate,
		ClientAuth:     c.clientAuth(),
		// A resumed session would not be judged by the client CAs of now.
		SessionTicketsDisabled: len(c.ClientCAs) > 0,
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load certificate %s with key %s: %w", c.CertFile, c.KeyFile, err)
		}
		conf.Certificates, conf.GetCertificate = []tls.Certificate{pair}, nil
	}
	if conf.ClientCAs, err = c.loadCAs(); err != nil {
		return nil, err
	}
	return conf, nil
}

func (c TLSConfig) loadCAs() (*x509.CertPool, error) {
	if len(c.ClientCAs) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	for _, name := range c.ClientCAs {
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read client CA: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read client CA %s: no certificate in it", name)
		}
	}
	return pool, nil
}

func (c TLSConfig) files() []string {
	var names []string
	if c.CertFile != "" {
		names = append(names, c.CertFile, c.KeyFile)
	}
	return append(names, c.ClientCAs...)
}

package cluster

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	minSecretLen = 16 // characters; fewer are refused
	maxSecrets   = 8
	maxSecretLen = 1024
)

// GenerateSecret makes a cluster secret of 256 random bits, 43 characters.
func GenerateSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

// ReadSecretFile reads the secrets of a file, one a line: the first signs, all
// are trusted. Blank lines are skipped. The warning, empty if all is well, is
// for the operator: a file that others may read, or a secret that looks weak.
func ReadSecretFile(path string) (secrets []string, warning string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", fmt.Errorf("read cluster secret: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, "", fmt.Errorf("read cluster secret: %w", err)
	}
	const most = 2 * maxSecrets * maxSecretLen
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, "", fmt.Errorf("read cluster secret: %w", err)
	}
	if len(text) > most {
		return nil, "", fmt.Errorf("read cluster secret %s: more than %d bytes", path, most)
	}
	for line := range strings.Lines(string(text)) {
		if s := strings.TrimSpace(line); s != "" {
			secrets = append(secrets, s)
		}
	}
	if err := checkSecrets(secrets); err != nil {
		return nil, "", fmt.Errorf("read cluster secret %s: %w", path, err)
	}
	switch {
	case info.Mode().Perm()&0o007 != 0:
		warning = fmt.Sprintf("cluster secret %s can be read by every user (mode %04o): chmod 600 it", path, info.Mode().Perm())
	case len(secrets[0]) < 32:
		warning = fmt.Sprintf("cluster secret %s has only %d characters: make one with 'pontoon cluster secret'", path, len(secrets[0]))
	}
	return secrets, warning, nil
}

// checkSecrets never quotes a secret.
func checkSecrets(secrets []string) error {
	if n := len(secrets); n == 0 || n > maxSecrets {
		return fmt.Errorf("%d secrets, must be 1 to %d lines", n, maxSecrets)
	}
	for i, s := range secrets {
		if len(s) < minSecretLen || len(s) > maxSecretLen {
			return fmt.Errorf("secret %d has %d characters, must be %d to %d", i+1, len(s), minSecretLen, maxSecretLen)
		}
	}
	return nil
}

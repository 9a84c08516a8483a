package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pontoon-registry/pontoon/cluster"
)

// ownSecret is where a node that was given no secret keeps one of its own, in its data directory.
const ownSecret = "secret"

// secretPath is the file that holds the cluster's secrets.
func (c *Config) secretPath() string {
	return orText(c.Cluster.SecretFile, filepath.Join(c.Cluster.DataDir, ownSecret))
}

// secrets reads the cluster's secrets; a node that was given none makes one at its first start.
func (c *Config) secrets(log *slog.Logger) ([]string, error) {
	path := c.secretPath()
	if c.Cluster.SecretFile == "" {
		if err := writeSecret(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	secrets, warning, err := cluster.ReadSecretFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cluster.secretfile %s is not there: make it once with `pontoon cluster secret %s` "+
			"and copy it to every node", path, path)
	}
	if warning != "" {
		log.Warn(warning)
	}
	return secrets, err
}

// writeSecret makes a secret in a file that was not there, readable by its owner only.
func writeSecret(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make a cluster secret: %w", err)
	}
	_, err = f.WriteString(cluster.GenerateSecret() + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		// Such as a full disk: half a secret would be taken for a whole one, or refused, at every later start.
		return errors.Join(fmt.Errorf("make a cluster secret: %w", err), os.Remove(path))
	}
	return nil
}

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/pontoon-registry/pontoon/cluster/backup"
)

// BackupConfig is section backup. Where backups go follows from Directory and S3; see backupPlace.
type BackupConfig struct {
	Enabled, Log bool
	Schedule     string
	Keep         int64
	KeepFor      time.Duration
	Directory    string
	S3           S3Config
}

func backupKeys(c *Config) []key {
	b := &c.Backup
	s3 := &b.S3
	same := "default: that of storage.s3"
	return []key{
		{path: "backup.enabled", into: flag{&b.Enabled}, doc: "default: true with storage.s3 or a place named here, else false"},
		{path: "backup.schedule", into: text{&b.Schedule, backupSchedule}, def: backup.DefaultSchedule,
			doc: "when full snapshots are taken: five cron fields, @daily, or @every and a duration"},
		{path: "backup.log", into: flag{&b.Log}, def: "true",
			doc: "archive the log every 2s; false: what was written since the last full snapshot is lost with the cluster"},
		{path: "backup.keep", into: number{&b.Keep, 1, 1000}, def: "7",
			doc: "full snapshots that stay however old they are; storage keeps what was deleted since the oldest one"},
		{path: "backup.keepfor", into: span{&b.KeepFor, 0, 3650 * day}, def: "168h",
			doc: "how long every full snapshot stays, however many there are; and what one in a file needs"},
		{path: "backup.directory", into: text{&b.Directory, nil}, doc: "a directory that every node mounts, for backups; default: beside the layers"},

		{path: "backup.s3.bucket", into: text{&s3.Bucket, nil}, doc: "another bucket for backups; " + same},
		{path: "backup.s3.region", into: text{&s3.Region, nil}, doc: same},
		{path: "backup.s3.regionendpoint", into: text{&s3.RegionEndpoint, nil}, doc: same},
		{path: "backup.s3.accesskey", into: text{&s3.AccessKey, nil}, secret: true, doc: same},
		{path: "backup.s3.secretkey", into: text{&s3.SecretKey, nil}, secret: true, doc: same},
		{path: "backup.s3.sessiontoken", into: text{&s3.SessionToken, nil}, secret: true, doc: same},
		{path: "backup.s3.forcepathstyle", into: flag{&s3.ForcePathStyle}, doc: same},
		{path: "backup.s3.rootdirectory", into: text{&s3.RootDirectory, nil}, doc: same},
		{path: "backup.s3.secure", into: flag{&s3.Secure}, doc: same},
		{path: "backup.s3.skipverify", into: flag{&s3.SkipVerify}, doc: same},
		{path: "backup.s3.cafile", into: text{&s3.CAFile, nil}, doc: same},
		{path: "backup.s3.proxy", into: text{&s3.Proxy, nil}, secret: true, doc: same},
		{path: "backup.s3.encrypt", into: flag{&s3.Encrypt}, doc: same},
		{path: "backup.s3.keyid", into: text{&s3.KeyID, nil}, doc: same},
		{path: "backup.s3.storageclass", into: text{&s3.StorageClass, nil}, doc: same},
		{path: "backup.s3.checksums", into: text{&s3.Checksums, oneOf("supported", "required")}, doc: same},
	}
}

// backupSchedule checks backup.schedule; cluster/backup reads it.
func backupSchedule(s string) string {
	if _, err := backup.ParseSchedule(s); err != nil {
		return "five cron fields such as 30 3 * * *, @daily, or @every and a duration such as @every 12h"
	}
	return ""
}

// settleBackup fills what backup.s3 leaves unsaid with what storage.s3 says, and decides whether there are backups.
func (c *Config) settleBackup(k *keyring) {
	const section = "backup.s3."
	for _, key := range k.keys {
		name, ours := strings.CutPrefix(key.path, section)
		if !ours || k.named(key.path) {
			continue
		}
		if err := key.into.set(scalar(fmt.Sprint(k.byPath["storage.s3."+name].into.plain()))); err != nil && k.byPath["storage.s3."+name].into.plain() != "" {
			k.problem(key.path, "%s", err)
		}
	}
	from, to := c.Storage.S3, &c.Backup.S3
	to.Memory, to.MaxCalls, to.MaxAttempts = 8<<20, from.MaxCalls, from.MaxAttempts // nothing is gathered in memory for a backup
	to.CallTimeout, to.ReadTimeout = from.CallTimeout, from.ReadTimeout
	if !k.named("backup.enabled") {
		c.Backup.Enabled = c.Storage.Driver == "s3" || c.Backup.Directory != "" || k.named("backup.s3")
	}
	if c.Storage.Driver != "s3" && !k.named("backup.s3") {
		c.Backup.S3 = S3Config{}
	}
}

func (c *Config) checkBackup(k *keyring) {
	b := c.Backup
	if b.Directory != "" && k.named("backup.s3") {
		k.problem("backup", "both directory and s3 are named, expected one")
		return
	}
	if !b.Enabled || b.S3 == (S3Config{}) || b.Directory != "" {
		return
	}
	if b.S3.Bucket == "" {
		k.problem("backup.s3.bucket", "is missing: name the bucket for backups")
		return
	}
	if k.named("backup.s3") {
		for _, err := range flatten(b.S3.config().Validate()) {
			k.problem("backup.s3", "%s", strings.TrimPrefix(err.Error(), "s3: ")) // the driver owns its rules
		}
	}
}

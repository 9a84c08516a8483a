package main

import (
	"strings"
	"testing"
	"time"
)

const bucketConfig = "version: 0.1\nstorage: {s3: {region: r1, bucket: layers, accesskey: ak, secretkey: tops3cret, forcepathstyle: true, rootdirectory: /reg}}\n"

func TestBackupsAreOnWhereThereIsAPlaceForThem(t *testing.T) {
	for name, c := range map[string]struct {
		file            string
		enabled         bool
		bucket, root    string
		directory       string
		region, keyword string
	}{
		"layers in a directory":     {"", false, "", "", "", "", ""},
		"and asked for":             {"version: 0.1\nbackup: {enabled: true}\n", true, "", "", "", "", ""},
		"a directory is named":      {"version: 0.1\nbackup: {directory: /mnt/b}\n", true, "", "", "/mnt/b", "", ""},
		"layers in a bucket":        {bucketConfig, true, "layers", "/reg", "", "r1", "ak"},
		"and not wanted":            {bucketConfig + "backup: {enabled: false}\n", false, "layers", "/reg", "", "r1", "ak"},
		"another bucket":            {bucketConfig + "backup: {s3: {bucket: other}}\n", true, "other", "/reg", "", "r1", "ak"},
		"another bucket far away":   {bucketConfig + "backup: {s3: {bucket: other, region: r2, accesskey: ak2, secretkey: sk2, rootdirectory: /b}}\n", true, "other", "/b", "", "r2", "ak2"},
		"a bucket beside directory": {"version: 0.1\nbackup: {s3: {bucket: other, region: r2}}\n", true, "other", "", "", "r2", ""},
	} {
		got := mustParse(t, c.file).Backup
		if got.Enabled != c.enabled || got.S3.Bucket != c.bucket || got.S3.RootDirectory != c.root || got.Directory != c.directory ||
			got.S3.Region != c.region || got.S3.AccessKey != c.keyword {
			t.Errorf("%s: %+v", name, got)
		}
		if got.S3.Bucket != "" && got.S3.config().Validate() != nil {
			t.Errorf("%s: %v", name, got.S3.config().Validate())
		}
	}
	b := mustParse(t, bucketConfig+"backup: {s3: {bucket: other}}\n").Backup
	if !b.S3.ForcePathStyle || !b.S3.Secure || b.Schedule != "@daily" || b.Keep != 7 || b.KeepFor != 7*24*time.Hour || !b.Log {
		t.Errorf("defaults: %+v", b)
	}
}

func TestWhatCannotBeABackupIsRefused(t *testing.T) {
	for file, want := range map[string]string{
		"version: 0.1\nbackup: {directory: /b, s3: {bucket: b}}\n":    "backup: both directory and s3 are named",
		"version: 0.1\nbackup: {s3: {region: r}}\n":                   "backup.s3.bucket: is missing",
		"version: 0.1\nbackup: {s3: {bucket: b}}\n":                   "backup.s3: region: must be set",
		bucketConfig + "backup: {s3: {bucket: b, accesskey: ''}}\n":   "accesskey and secretkey",
		"version: 0.1\nbackup: {keep: 0}\n":                           "backup.keep: got",
		"version: 0.1\nbackup: {keep: 1001}\n":                        "backup.keep: got",
		"version: 0.1\nbackup: {keepfor: -1s}\n":                      "backup.keepfor: got",
		"version: 0.1\nbackup: {schedule: never}\n":                   "backup.schedule: got",
		"version: 0.1\nbackup: {schedule: '* * *'}\n":                 "backup.schedule: got",
		"version: 0.1\nbackup: {schedule: '0 3 31 2 *'}\n":            "backup.schedule: got",
		"version: 0.1\nbackup: {interval: 1h}\n":                      "backup.interval: unknown key",
		bucketConfig + "backup: {s3: {bucket: b, checksums: some}}\n": "backup.s3.checksums: got",
	} {
		if got := problems(t, file); !strings.Contains(got, want) {
			t.Errorf("%s: got\n%s\nexpected\n%s", file, got, want)
		}
	}
}

// TestAPrintedPlaceOfBackupsMeansTheSame: what was filled in is not printed as if somebody had said it.
func TestAPrintedPlaceOfBackupsMeansTheSame(t *testing.T) {
	for _, file := range []string{"", bucketConfig, bucketConfig + "backup: {s3: {bucket: other}}\n", "version: 0.1\nbackup: {enabled: true}\n"} {
		first := mustParse(t, file)
		printed, err := first.yaml()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(file, "other") != strings.Contains(string(printed), "other") || strings.Contains(string(printed), "tops3cret") {
			t.Errorf("printed %s", printed)
		}
		again := mustParse(t, strings.NewReplacer("(redacted)", "x").Replace(string(printed))).Backup
		again.S3.AccessKey, again.S3.SecretKey = first.Backup.S3.AccessKey, first.Backup.S3.SecretKey
		if again != first.Backup {
			t.Errorf("got %+v, printed of %+v", again, first.Backup)
		}
	}
}

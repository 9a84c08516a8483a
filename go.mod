module github.com/pontoon-registry/pontoon

go 1.26.0

require (
	connectrpc.com/connect v1.21.1 // the operators' API: one definition gives gRPC and plain JSON over HTTP
	github.com/anishathalye/porcupine v1.3.1 // tests: checks histories for linearizability
	github.com/aws/aws-sdk-go-v2 v1.47.7 // S3, and the whole credential chain that operators expect
	github.com/aws/aws-sdk-go-v2/config v1.33.15 // S3: profiles, roles, web identity
	github.com/aws/aws-sdk-go-v2/credentials v1.20.15 // S3: keys from the configuration file
	github.com/aws/aws-sdk-go-v2/service/s3 v1.114.8 // S3 itself
	github.com/aws/smithy-go v1.28.8 // S3: the error codes of its answers
	github.com/cockroachdb/pebble/v2 v2.1.7 // the store under the state: ordered, cheap checkpoints, a log that is a prefix without fsync
	github.com/google/go-containerregistry v0.22.1 // tests: a registry client that many tools are built on
	github.com/hashicorp/go-hclog v1.6.3 // Raft logs through it; bridged to slog
	github.com/hashicorp/memberlist v0.6.0 // gossip. Hold at v0.6.0: v0.7.0 needs go-metrics v0.7.0, with which raft-boltdb does not build
	github.com/hashicorp/raft v1.7.3 // consensus. Hold at v1.7.3: v1.8.0 needs go-metrics v0.7.0, with which raft-boltdb does not build
	github.com/hashicorp/raft-autopilot v0.3.0 // who votes, and who is removed: its loop and its rules of safety, with our choice of voters (R-D5)
	github.com/hashicorp/raft-boltdb/v2 v2.3.1 // the log on disk; holds raft and memberlist back, see there
	github.com/opencontainers/go-digest v1.0.0 // the grammar of digests
	github.com/opencontainers/image-spec v1.1.1 // the types of manifests and indexes
	github.com/pires/go-proxyproto v0.15.0 // PROXY protocol v2. Hold at v0.15.0: v0.16.0 wants Go 1.26.9
	github.com/prometheus/client_golang v1.25.0 // metrics
	github.com/prometheus/client_model v0.6.3 // tests: reads metrics back
	github.com/robfig/cron/v3 v3.0.1 // schedules of garbage collection and backups: the grammar of cron, and when is next
	github.com/rogpeppe/go-internal v1.16.0 // tests: scripts of the command line (testscript)
	github.com/sony/gobreaker/v2 v2.4.0 // the breaker before the store: small, no dependencies, calls of two steps
	github.com/spf13/cobra v1.10.2 // the command line: help, completion, flags as people know them
	go.etcd.io/bbolt v1.5.0 // options of the log's file
	go.uber.org/goleak v1.3.0 // tests: no goroutine is left behind
	go.yaml.in/yaml/v3 v3.0.6 // the configuration file, with the line of every key
	golang.org/x/crypto v0.58.0 // bcrypt, for htpasswd
	golang.org/x/net v0.62.0 // HTTP/2: settings of the server
	golang.org/x/sync v0.24.0 // errgroup: whoever starts a goroutine waits for it
	golang.org/x/sys v0.49.0 // peer credentials of the socket, locks of files
	golang.org/x/time v0.16.0 // the limit on deletes per second
	google.golang.org/grpc v1.85.0 // node to node
	google.golang.org/protobuf v1.36.12 // commands and rows
)

require github.com/klauspost/compress v1.20.3 // backups: zstd

require (
	github.com/DataDog/zstd v1.5.7 // indirect
	github.com/RaduBerinde/axisds v0.1.0 // indirect
	github.com/RaduBerinde/btreemap v0.0.0-20250419174037-3d62b7205d54 // indirect
	github.com/armon/go-metrics v0.4.1 // indirect
	github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream v1.7.26 // indirect
	github.com/aws/aws-sdk-go-v2/feature/ec2/imds v1.20.7 // indirect
	github.com/aws/aws-sdk-go-v2/internal/configsources v1.5.10 // indirect
	github.com/aws/aws-sdk-go-v2/internal/endpoints/v2 v2.8.10 // indirect
	github.com/aws/aws-sdk-go-v2/internal/v4a v1.5.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/accept-encoding v1.13.24 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/checksum v1.11.11 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/presigned-url v1.14.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/internal/s3shared v1.20.10 // indirect
	github.com/aws/aws-sdk-go-v2/service/signin v1.12.3 // indirect
	github.com/aws/aws-sdk-go-v2/service/sso v1.39.3 // indirect
	github.com/aws/aws-sdk-go-v2/service/ssooidc v1.44.3 // indirect
	github.com/aws/aws-sdk-go-v2/service/sts v1.51.8 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/boltdb/bolt v1.3.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/cockroachdb/crlib v0.0.0-20241112164430-1264a2edc35b // indirect
	github.com/cockroachdb/errors v1.11.3 // indirect
	github.com/cockroachdb/logtags v0.0.0-20230118201751-21c54148d20b // indirect
	github.com/cockroachdb/redact v1.1.5 // indirect
	github.com/cockroachdb/swiss v0.0.0-20260820225851-333444432258 // indirect
	github.com/cockroachdb/tokenbucket v0.0.0-20230807174530-cc333fc44b06 // indirect
	github.com/docker/cli v29.7.2+incompatible // indirect
	github.com/docker/docker-credential-helpers v0.9.3 // indirect
	github.com/fatih/color v1.13.0 // indirect
	github.com/getsentry/sentry-go v0.27.0 // indirect
	github.com/gogo/protobuf v1.3.2 // indirect
	github.com/golang/snappy v0.0.5-0.20231225225746-43d5d4cd4e0e // indirect
	github.com/google/btree v1.1.3 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/hashicorp/errwrap v1.1.0 // indirect
	github.com/hashicorp/go-immutable-radix v1.3.1 // indirect
	github.com/hashicorp/go-metrics v0.6.0 // indirect
	github.com/hashicorp/go-msgpack/v2 v2.1.5 // indirect
	github.com/hashicorp/go-multierror v1.1.1 // indirect
	github.com/hashicorp/go-sockaddr v1.0.7 // indirect
	github.com/hashicorp/golang-lru v0.5.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/kr/pretty v0.3.1 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/mattn/go-colorable v0.1.13 // indirect
	github.com/mattn/go-isatty v0.0.17 // indirect
	github.com/miekg/dns v1.1.72 // indirect
	github.com/minio/minlz v1.0.1-0.20250507153514-87eb42fe8882 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/sean-/seed v0.0.0-20170313163322-e2103e2c3529 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/stretchr/objx v0.5.3 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	golang.org/x/exp v0.0.0-20230626212559-97b1e661b5df // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	gotest.tools/v3 v3.5.2 // indirect
)

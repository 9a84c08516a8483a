# Everything that is done with this tree. `make check` is what CI runs, and nothing else is.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

BIN     := $(CURDIR)/bin
VERSION ?= $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.release=$(VERSION)

export PATH    := $(BIN):$(shell go env GOPATH)/bin:$(PATH):/usr/sbin
export GOFLAGS := -buildvcs=false
# Releases are built without cgo, so everything else is too and shares their build cache. Only the race detector needs it.
export CGO_ENABLED := 0

# Big tools are pinned here, not in go.mod, so that what they depend on stays out of what we ship.
TOOLS := \
	github.com/bufbuild/buf/cmd/buf@v1.75.0 \
	google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12 \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2 \
	connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1 \
	github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 \
	github.com/versity/versitygw/cmd/versitygw@v1.8.0 \
	github.com/google/go-containerregistry/cmd/crane@v0.22.1

# command:package of Debian, one per need.
PACKAGES := gcc:gcc haproxy:haproxy skopeo:skopeo podman:podman mmdebstrap:mmdebstrap curl:curl \
	ip:iproute2 iptables:iptables mkfs.ext4:e2fsprogs mount:mount

# Clients that take minutes to install, for make e2e alone. Debian starts a dockerd of its own with docker.io where systemd
# runs; the tests do not touch it and start theirs.
E2E_TOOLS := \
	github.com/regclient/regclient/cmd/regctl@v0.11.7 \
	helm.sh/helm/v3/cmd/helm@v3.22.0 \
	github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
E2E_PACKAGES := docker:docker.io dockerd:docker.io containerd:containerd ctr:containerd buildah:buildah

# What runs concurrently enough for the race detector to pay for its time.
RACE := ./meta/... ./blobs/... ./cluster/... ./api/...

# Tests of one package side by side: those of ./cluster wait for nodes most of the time.
PARALLEL := 4

FUZZTIME ?= 30s
TIMES    ?= 20
KILLS    ?= 20
CYCLES   ?= 25
MILLION  ?= 1000000

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/pontoon, static, with its version stamped
	@mkdir -p $(BIN)
	go build -ldflags '$(LDFLAGS)' -o $(BIN)/pontoon ./cmd/pontoon

# It breaks on command, for the tests of chaos alone: see cmd/pontoon/faults.go.
.PHONY: faults
faults: ## build bin/pontoon-faults, which tests can break from within; never release it
	@mkdir -p $(BIN)
	go build -tags faults -ldflags '$(LDFLAGS)' -o $(BIN)/pontoon-faults ./cmd/pontoon

.PHONY: demo
demo: ## three nodes and a balancer on 127.0.0.1:5000, from source (ONCE=1 ends by itself)
	@go run ./cmd/pontoon demo $(if $(ONCE),--once)

.PHONY: check
check: tools format lint proto-check mod-check build race rest ## all that CI runs: format, lint, protos, build, every test once

.PHONY: tools
tools: ## install what the checks need and the machine lacks
	@.ci/tools $(BIN) "$(PACKAGES)" $(TOOLS)

.PHONY: e2e-tools
e2e-tools: tools ## install the clients that only make e2e needs: docker, containerd, buildah, regctl, helm, cosign
	@.ci/tools $(BIN) "$(E2E_PACKAGES)" $(E2E_TOOLS)

.PHONY: format
format: # fails when gofmt would change a file
	@out=$$(gofmt -l $$(find . -name '*.go' -not -path './bin/*' -not -path './.*/*')); \
	if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

.PHONY: lint
lint: ## go vet, golangci-lint, buf lint
	go vet ./...
	go vet -tags faults ./...
	golangci-lint run ./...
	buf lint

# The timeouts end what hangs. They are several times what a busy machine of two cores takes.
.PHONY: test
test: build faults ## every test, without the race detector; the end-to-end tests start real processes
	go test -timeout 30m -parallel $(PARALLEL) $$(go list ./... | grep -v '/chaos$$')
	go test -count=1 -v -timeout 45m ./chaos -binary=$(BIN)/pontoon -faultsbinary=$(BIN)/pontoon-faults

# A test that passes under the detector is not run again without it: most of them wait, as long either way. The simulation
# is shorter under it, so both run; that it and the random worlds of meta see defects is no question to the detector.
SIMULATED := ^(TestTheClusterKeepsItsPromisesUnderSimulatedFaults|TestTheSimulationCatches)$$

.PHONY: race
race: ## the tests of all that runs concurrently, under the race detector
	CGO_ENABLED=1 go test -race -timeout 45m -parallel $(PARALLEL) -skip '^(TestTheSimulationCatches|TestEachRuleIsNeeded)$$' $(RACE)

.PHONY: rest
rest: build faults ## the tests that make race leaves out: the long simulation, the command line, the end-to-end tests
	go test -timeout 30m $$(go list ./... | grep -vxFf <(go list $(RACE)) | grep -v '/chaos$$')
	go test -timeout 30m ./cluster -run '$(SIMULATED)'
	go test -timeout 30m ./meta -run '^TestEachRuleIsNeeded$$'
	go test -count=1 -v -timeout 45m ./chaos -binary=$(BIN)/pontoon -faultsbinary=$(BIN)/pontoon-faults

.PHONY: generate
generate: ## regenerate the code under proto/
	buf generate --template proto/buf.gen.yaml

# Into a folder beside, then compared: a developer's unfinished work neither hides a difference nor makes one.
.PHONY: generate-check
generate-check:
	@out=$$(mktemp -d); trap 'rm -rf $$out' EXIT; \
	buf generate --template proto/buf.gen.yaml -o $$out; \
	if ! diff -rq -x '*.proto' -x 'buf.gen.yaml' $$out/proto proto; then \
		echo "generated code is not what the .proto files give: run make generate"; exit 1; fi

.PHONY: proto-check
proto-check: generate-check # generated code is current; no change that breaks the wire or the JSON
	@.ci/breaking

.PHONY: mod-check
mod-check: # go.mod and go.sum say exactly what is used
	go mod tidy -diff
	go mod verify

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (30s) each
	@for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do \
		for target in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
			echo "$$dir $$target"; \
			go test $$dir -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x; \
		done; \
	done

.PHONY: sim
sim: ## DURATION (1h) of simulated cluster time on NODES (3) nodes with faults; SEED=n repeats the faults of a run
	go test -count=1 -v -timeout 1h ./cluster -run '^TestTheClusterKeepsItsPromisesUnderSimulatedFaults$$' \
		-sim.duration=$(or $(DURATION),1h) -sim.nodes=$(or $(NODES),3) -sim.seed=$(or $(SEED),0)

.PHONY: conformance
conformance: tools build ## the official suite, TIMES (20) times on S3 and on a directory: CONFORMANCE=<path to the built suite> (RESTARTING=1 restarts nodes meanwhile)
	@[ -x "$(CONFORMANCE)" ] || { echo "CONFORMANCE=<path> names the built suite: go build in the folder conformance of"; \
		echo "https://github.com/opencontainers/distribution-spec"; exit 2; }
	go test -count=1 -v -timeout 3h ./chaos -run '^TestConformance$$' -binary=$(BIN)/pontoon \
		-conformance=$(abspath $(CONFORMANCE)) -times=$(TIMES) $(if $(RESTARTING),-restarting)

.PHONY: e2e
e2e: e2e-tools build ## the long end-to-end tests, as root: every client, 1 GiB layers, KILLS (20) killed leaders, CYCLES (25) of churn, GC under load
	go test -count=1 -v -timeout 3h ./chaos \
		-run '^(TestClients|TestPush|TestLeader|TestRolling|TestWritesPause|TestClusterChurns|TestGarbage|TestALostCluster|TestADrill)' \
		-binary=$(BIN)/pontoon -long -kills=$(KILLS) -cycles=$(CYCLES)

.PHONY: bench
bench: tools build ## the figures, side by side with plain servers on this machine
	go test -count=1 -v -timeout 1h ./chaos -run '^TestFigures$$' -binary=$(BIN)/pontoon -figures

.PHONY: bench-million
bench-million: tools build ## the figures with MILLION (1000000) manifests: compaction, restart, a new node, GC, snapshot, restore (PREPARED=folder keeps the filled state)
	go test -count=1 -v -timeout 3h ./chaos -run '^TestFiguresOf(ManyManifests|ForgettingAndRemembering)$$' \
		-binary=$(BIN)/pontoon -million=$(MILLION) -prepared=$(PREPARED)

.PHONY: drill
drill: tools build ## lose all nodes under load and restore them; restore beside a cluster that runs; GC under load, 10 minutes each
	go test -count=1 -v -timeout 2h ./chaos -run '^(TestGarbage|TestALostCluster|TestADrill)' -binary=$(BIN)/pontoon -long

# The last release with an older command version than ours: one of the same version may always come back, so it would not show
# that a release refuses what it does not know. A shallow clone may lack its commit.
PREVIOUS ?= 252531a

.PHONY: previous
previous: # bin/pontoon-previous, from which nodes are upgraded, and to which they roll back
	@mkdir -p $(BIN); rm -f $(BIN)/pontoon-previous; \
	if ! git -c safe.directory='*' cat-file -e '$(PREVIOUS)^{commit}' 2>/dev/null; then \
		echo "NOT RUN: upgrade and roll-back, for this clone has no commit $(PREVIOUS): git fetch --unshallow"; exit 0; fi; \
	dir=$$(mktemp -d); trap 'rm -rf $$dir' EXIT; \
	git -c safe.directory='*' archive $(PREVIOUS) | tar -x -C $$dir; \
	cd $$dir && go build -ldflags '-s -w -X main.release=$(PREVIOUS)' -o $(BIN)/pontoon-previous ./cmd/pontoon

.PHONY: chaos
chaos: tools build faults previous ## DURATION (5m) of faults under load, then a verdict as the last line (SEED=n repeats the faults; FAULTS=kill-leader,... only these; BALANCED=1 measures availability: all through HAProxy, no two faults at once)
	go test -c -o $(BIN)/chaos.test ./chaos
	@cd chaos && exec $(BIN)/chaos.test -test.run '^(TestChaos|TestNodesAreUpgradedAndRollBack)$$' -test.v -test.timeout 0 -binary=$(BIN)/pontoon -faultsbinary=$(BIN)/pontoon-faults \
		-chaos.duration=$(or $(DURATION),5m) -chaos.seed=$(or $(SEED),0) -chaos.faults=$(FAULTS) -chaos.dir=$(DIR) \
		$(if $(BALANCED),-chaos.balanced) $$([ ! -x $(BIN)/pontoon-previous ] || echo -chaos.previous=$(BIN)/pontoon-previous)

.PHONY: churn
churn: tools build ## CYCLES (25) joins, leaves, kills, wiped disks, moves and transfers under load (SEED=n repeats a run)
	go test -count=1 -v -timeout 2h ./chaos -run '^TestClusterChurns' -binary=$(BIN)/pontoon \
		-cycles=$(CYCLES) $(if $(SEED),-seed=$(SEED))

.PHONY: chaos-exhibits
chaos-exhibits: tools ## put each defect of chaos/exhibits into a copy of the tree: the suite must see it (ONLY=regexp names some)
	go run ./chaos/exhibits $(if $(ONLY),-only='$(ONLY)')

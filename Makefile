# SPDX-License-Identifier: Apache-2.0
# `make image` bakes the demo, `make run` boots it; `make help` lists the rest.
# Set-up is part of every target that needs it, and is done once.

# The demo to bake: 1.0.0 or 1.1.0.
VERSION ?= 1.0.0
# Passed on to packer build, e.g. ARGS='-var signing_key=... -var signing_cert=...'
ARGS ?=
# Passed on to the benchmark, and to go test in the soak.
BENCH ?=
SOAK ?=
# A folder made by `holdfast-release lock --archive`, a Debian mirror; optional.
ARCHIVE ?=
MIRROR ?=

GO ?= go
BIN := $(CURDIR)/build/bin
STACK := compose/stacks/demo/$(VERSION)/compose.yaml
RECIPE := compose/stacks/demo/images.yaml
IMAGES := build/demo-$(VERSION).images
LOCK := build/demo-$(VERSION).lock
# Both demos share their operating system: the second lock starts from the first.
OTHER = $(firstword $(filter-out $(LOCK),$(wildcard build/demo-*.lock)))
DIST := dist/demo-$(VERSION)
# Keys of the demo's releases, made when they are missing: never ship them.
KEYS := build/demo-keys
# The race detector needs a C compiler; without one the same tests run.
RACE := $(if $(shell command -v gcc || command -v cc),-race)
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

export PATH := $(BIN):$(PATH)
export PACKER_PLUGIN_PATH := $(CURDIR)/build/packer-plugins
export CHECKPOINT_DISABLE := 1

.DEFAULT_GOAL := help
.PHONY: help image run publish setup keys lock both tools peers test test-unit test-engine test-vm soak bench lint generate clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

image: lock keys ## bake the demo into dist/demo-VERSION (VERSION=1.1.0 for the other one)
	@packer build -var version=$(VERSION) $(if $(ARCHIVE),-var archive=$(ARCHIVE)) $(if $(MIRROR),-var mirror=$(MIRROR)) -var trust_root=$(CURDIR)/$(KEYS)/root.json $(ARGS) packer.pkr.hcl
	@holdfast-release inspect --roots $(DIST)
	@echo "Next: make run            boot it, with the guest book on http://127.0.0.1:8080/"
	@echo "      ls $(DIST)    .ova for vSphere and VirtualBox (docs/ova.md), .tar.gz for Google Cloud (docs/gce.md), disk.raw"
	@echo "      packer build -var aws_region=... packer.pkr.hcl   makes an AMI too (docs/ami.md)"

run: setup ## boot the newest image in QEMU, port 8080 forwarded; Ctrl-C powers it off
	@exec holdfast-release run $(ARGS)

publish: image ## sign the release and put it into dist/updates, a folder that boxes upgrade from
	@holdfast-release publish --release $(DIST)/release --keys $(KEYS) --to dist/updates
	@echo "Next: serve dist/updates with any web server, and on a box: holdfast upgrade http://SERVER/ (docs/upgrade.md)"

setup: ## what the other targets need: Debian packages, Packer, our programs
	@$(GO) run ./builder/cmd/setup

keys: setup
	@test -f $(KEYS)/root.json || holdfast-release keys init $(KEYS)

lock: setup ## make the demo's images and its lock, if they are not there or no longer serve
	@holdfast-release images --recipe $(RECIPE) --version $(VERSION) --layout $(IMAGES) $(if $(ARCHIVE),--archive $(ARCHIVE)) $(if $(MIRROR),--mirror $(MIRROR))
	@holdfast-release lock --stack $(STACK) --lock $(LOCK) --layout $(IMAGES) --relock-missing $(if $(OTHER),--from $(OTHER)) $(if $(ARCHIVE),--from-archive $(ARCHIVE)) $(if $(MIRROR),--mirror $(MIRROR))

both: lock ## make images and lock of both demos: tests upgrade from one to the other
	@$(MAKE) --no-print-directory lock VERSION=1.0.0
	@$(MAKE) --no-print-directory lock VERSION=1.1.0

tools: lock ## print the folder of the tools tree
	@holdfast-release tools --lock $(LOCK)

peers: ## build what tests compare with: Docker Compose, stand-ins for vSphere and Google Cloud
	@mkdir -p build/peers
	@CGO_ENABLED=0 $(GO) -C qa/peers build -trimpath -o $(CURDIR)/build/peers/ ./cmd/... github.com/fsouza/fake-gcs-server
	@CGO_ENABLED=0 $(GO) -C qa/compose build -trimpath -ldflags '-s -w -X github.com/docker/compose/v2/internal.Version=v2.40.3' -o $(CURDIR)/build/peers/docker-compose github.com/docker/compose/v2/cmd

test: test-unit test-engine test-vm ## every test
	@echo "All tests passed. Left out, because they take hours: make soak (all rows), make bench (measurements)."

test-unit: ## fast tests: no root, no network, seconds once compiled
	$(GO) vet ./...
	$(GO) test $(RACE) ./...

test-engine: image peers ## tests against real programs: Packer, Docker Engine, whole bakes, clouds' stand-ins (root)
	HOLDFAST_IMAGE=$(CURDIR)/$(DIST) HOLDFAST_PEERS=$(CURDIR)/build/peers HOLDFAST_TOOLS=$$(holdfast-release tools --lock $(LOCK)) $(GO) test -tags engine -timeout 60m -p 1 -count 1 ./...
	$(GO) test -tags bake -timeout 60m -count 1 -p 1 -v ./qa/bake ./qa/script

test-vm: image both peers ## tests that boot the baked disk and upgrade it (slow without hardware virtualisation)
	HOLDFAST_IMAGE=$(CURDIR)/$(DIST) HOLDFAST_PEERS=$(CURDIR)/build/peers $(GO) test -tags vm -timeout 90m -count 1 -v ./qa/vm ./qa/marketplace
	HOLDFAST_IMAGE=$(CURDIR)/$(DIST) HOLDFAST_RECORDING=$(wildcard $(CURDIR)/build/vm-logs/recording) $(GO) test -tags vm -timeout 30m -count 1 -v ./qa/powercut

soak: image both peers ## every row of the long tests: each power cut, each interrupt, each flipped block
	HOLDFAST_SOAK=1 HOLDFAST_IMAGE=$(CURDIR)/$(DIST) HOLDFAST_PEERS=$(CURDIR)/build/peers $(GO) test -tags vm -timeout 6h -count 1 -v ./qa/vm $(SOAK)
	HOLDFAST_SOAK=1 HOLDFAST_IMAGE=$(CURDIR)/$(DIST) HOLDFAST_RECORDING=$(CURDIR)/build/vm-logs/recording $(GO) test -tags vm -timeout 6h -count 1 -v ./qa/powercut
	HOLDFAST_SOAK=1 HOLDFAST_TOOLS=$$(holdfast-release tools --lock $(LOCK)) $(GO) test -tags engine -timeout 1h -count 1 -run TestCrashLoopOfMany -v ./qa/engine
	HOLDFAST_SOAK=1 $(GO) test -timeout 1h -count 1 -v ./compose/trust ./qa/attack
	HOLDFAST_SOAK=1 $(GO) test -tags bake -timeout 6h -count 1 -p 1 -v ./qa/bake ./qa/script $(SOAK)

bench: image peers ## measure beside mkosi, qemu-img, tar, docker compose; first boot to healthy; BENCH='-n 3'
	$(GO) run ./qa/bench -supervise $(BENCH)
	$(GO) run ./qa/bench -targets $(BENCH)
	$(GO) run ./qa/bench -upgrade $(BENCH)
	$(GO) run ./qa/bench $(BENCH)

lint: ## gofmt, go vet and golangci-lint
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "run: gofmt -w ."; exit 1; }
	$(GO) vet -tags engine,bake,vm ./...
	$(GO) run $(GOLANGCI) run ./...

generate: ## make generated files anew
	$(GO) generate ./...

clean: ## remove what was made here; the cache stays (~/.cache/holdfast)
	rm -rf build dist builder/supervisorbin/holdfast

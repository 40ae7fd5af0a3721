# The commands of the project; CI calls the same ones. "make help" lists them.

GO   ?= go
PORT ?= 6001
LINT := $(GO) tool -modfile=.ci/tools.mod golangci-lint

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## run the daemon from the sources: make run PORT=6001 ARGS='--loops 1'
	$(GO) run ./cmd/dreadlock $(PORT) $(ARGS)

.PHONY: build
build: ## build the daemon into .bin/, with the commit in it if git is there
	$(GO) build -buildvcs=auto -trimpath -o .bin/ ./cmd/...

.PHONY: fleet
fleet: build ## run three daemons on three members of etcd, to try a fleet; Ctrl-C ends it: make fleet ARGS='--port 0'
	$(GO) build -trimpath -o .bin/ ./bench/fleet
	.bin/fleet run $(ARGS)

.PHONY: test
test: ## run all tests with the race detector
	$(GO) test -race -timeout 10m ./...

.PHONY: check
check: lint ## lint and the short tests, for the inner loop
	$(GO) test -race -short -timeout 5m ./...

.PHONY: bench
bench: build ## compare the daemon with its peers and check the goals, in three minutes: make bench ARGS='--json FILE'
	.bin/dreadlock-bench compare $(ARGS)

.PHONY: bench-fleet
bench-fleet: build ## compare a fleet with clients that lock with etcd alone and check the goals, in three minutes: make bench-fleet ARGS='--json FILE'
	$(GO) build -buildvcs=auto -trimpath -o .bin/ ./bench/fleet
	.bin/fleet bench $(ARGS)

.PHONY: test-faults
test-faults: build ## make everything fail that can and check the promises, as root: make test-faults ARGS='--long vanish'
	.bin/dreadlock-bench faults $(ARGS)

.PHONY: test-fleet
test-fleet: build ## the same for fleets on etcd: make test-fleet ARGS='--long'
	$(GO) build -trimpath -o .bin/ ./bench/fleet
	.bin/dreadlock-bench faults --fleet $(ARGS)

.PHONY: soak
soak: build ## load the daemon with faults for long, as root, and draw what grows: make soak TIME=10m ARGS='--svg FILE'
	.bin/dreadlock-bench soak --time $(or $(TIME),10m) $(ARGS)

.PHONY: microbench
microbench: ## run the micro-benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: fuzz
fuzz: ## fuzz the parser for a while: make fuzz TIME=60s
	$(GO) test -run '^$$' -fuzz FuzzParser -fuzztime $(or $(TIME),60s) -fuzzminimizetime 200x ./proto

.PHONY: lint
lint: ## check the sources: golangci-lint, built from the versions in .ci/tools.mod
	$(LINT) run ./...
	$(GO) mod tidy -diff

.PHONY: fmt
fmt: ## format the sources
	$(LINT) fmt ./...

# The commands of the project; CI calls the same ones. "make help" lists them.

GO   ?= go
PORT ?= 6001
LINT := $(GO) tool -modfile=.ci/tools.mod golangci-lint

# Programs without C, which run on every Linux; without the tables of debuggers. Profiles and stacks need none.
BUILD   := -buildvcs=auto -trimpath -ldflags=-w
GOBUILD := CGO_ENABLED=0 $(GO) build $(BUILD)

PREFIX ?= /usr/local

# The version of Go that packages are built with, and that make vuln looks at; "local" is the one that is here. Go fetches it by itself.
TOOLCHAIN ?= $(shell sed -n 's/^toolchain //p' .ci/package.mod)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## run the daemon from the sources: make run PORT=6001 ARGS='--loops 1'
	$(GO) run ./cmd/dreadlock $(PORT) $(ARGS)

.PHONY: build
build: ## build the programs into .bin/, with the commit in them if git is there
	$(GOBUILD) -o .bin/ ./cmd/...

# The program with the members of etcd, for trials of a fleet. No other program links the server of etcd.
.PHONY: members
members: build
	$(GO) build -buildvcs=auto -trimpath -o .bin/ ./bench/fleet

# The manual pages are printed by the programs, those of this machine also where others are built for another one.
.PHONY: man
man:
	@mkdir -p .bin/man
	GOOS= GOARCH= $(GOBUILD) -o .bin/man/ ./cmd/dreadlock ./cmd/dreadlockctl
	.bin/man/dreadlock --man >.bin/man/dreadlock.8
	.bin/man/dreadlockctl --man >.bin/man/dreadlockctl.1

.PHONY: programs
programs: man
	$(GOBUILD) -o .bin/ ./cmd/dreadlock ./cmd/dreadlockctl

# Under sudo there is often no Go: then what "make programs" has built before is installed.
prefix := $(DESTDIR)$(PREFIX)
.PHONY: install
install: $(if $(shell command -v $(GO)),programs) ## install programs, manual pages, completions and units: make install PREFIX=/usr DESTDIR=DIR
	install -D -m 755 -t $(prefix)/bin .bin/dreadlock .bin/dreadlockctl
	install -D -m 644 -t $(prefix)/share/man/man8 .bin/man/dreadlock.8
	install -D -m 644 -t $(prefix)/share/man/man1 .bin/man/dreadlockctl.1
	gzip -9nf $(prefix)/share/man/man8/dreadlock.8 $(prefix)/share/man/man1/dreadlockctl.1
	install -D -m 644 cmd/dreadlockctl/completion/bash $(prefix)/share/bash-completion/completions/dreadlockctl
	install -D -m 644 cmd/dreadlockctl/completion/zsh $(prefix)/share/zsh/site-functions/_dreadlockctl
	install -D -m 644 cmd/dreadlockctl/completion/fish $(prefix)/share/fish/vendor_completions.d/dreadlockctl.fish
	install -D -m 644 -t $(prefix)/lib/systemd/system cmd/dreadlock/systemd/dreadlock.service cmd/dreadlock/systemd/dreadlock.socket
	sed -i 's,/usr/local/bin/,$(PREFIX)/bin/,' $(prefix)/lib/systemd/system/dreadlock.service

.PHONY: uninstall
uninstall: ## remove what install has put there
	cd $(prefix) && rm -f bin/dreadlock bin/dreadlockctl share/man/man8/dreadlock.8.gz share/man/man1/dreadlockctl.1.gz \
		share/bash-completion/completions/dreadlockctl share/zsh/site-functions/_dreadlockctl \
		share/fish/vendor_completions.d/dreadlockctl.fish lib/systemd/system/dreadlock.service lib/systemd/system/dreadlock.socket

.PHONY: package
package: ## make a release of this commit in .bin/package: tar.gz, .deb and .rpm, SBOM, notes, checksums
	.ci/package

.PHONY: fleet
fleet: members ## run three daemons on three members of etcd, to try a fleet; Ctrl-C ends it: make fleet ARGS='--port 0'
	.bin/fleet run $(ARGS)

.PHONY: test
test: ## run all tests with the race detector
	$(GO) test -race -timeout 15m ./...

.PHONY: check
check: lint ## lint and the short tests, for the inner loop
	$(GO) test -race -short -timeout 5m ./...

.PHONY: bench
bench: members ## compare the daemon with its peers and check the goals, in three to four minutes: make bench ARGS='--json FILE'
	.bin/dreadlock-bench compare $(ARGS)

.PHONY: bench-fleet
bench-fleet: members ## compare a fleet with clients that lock with etcd alone and check the goals, in three minutes: make bench-fleet ARGS='--json FILE'
	.bin/fleet bench $(ARGS)

.PHONY: test-faults
test-faults: build ## make everything fail that can and check the promises, as root: make test-faults ARGS='--long vanish'
	.bin/dreadlock-bench faults $(ARGS)

.PHONY: test-fleet
test-fleet: members ## the same for fleets on etcd: make test-fleet ARGS='--long'
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

.PHONY: cover
cover: ## how much of each package the tests reach, also by the programs that they start: make cover ARGS='-short ./server/...'
	rm -rf .bin/cover && mkdir -p .bin/cover
	GOFLAGS='$(GOFLAGS) -cover -covermode=atomic -coverpkg=dreadlock/...' GOCOVERDIR=$(CURDIR)/.bin/cover \
		$(GO) test -timeout 20m $(or $(ARGS),./...) -args -test.gocoverdir=$(CURDIR)/.bin/cover; \
	status=$$?; $(GO) tool covdata percent -i .bin/cover; exit $$status

# The list comes as a module, so that it can be had wherever modules can. Of the many ways to a fault the first is shown.
.PHONY: vuln
vuln: export GOTOOLCHAIN = $(TOOLCHAIN)
vuln: ## look for known vulnerabilities in what is used, and in the Go of packages, by the latest list of the Go project
	@mkdir -p .bin
	$(GO) version
	list=$$($(GO) mod download -json golang.org/x/vulndb@latest | sed -n 's/.*"Dir": "\(.*\)".*/\1/p') && \
	$(GO) tool -modfile=.ci/tools.mod govulncheck -db "file://$$list/data/osv" ./... >.bin/vuln.txt; \
	status=$$?; grep -vE '^ +#([2-9]|[0-9]{2,}):' .bin/vuln.txt; exit $$status

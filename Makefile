# Everything a developer runs. `make help` lists the targets.
SHELL := /bin/bash
GO ?= go
BIN := bin/replicanode
ARGS ?=
PKGS := ./...

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/replicanode
	@mkdir -p bin
	$(GO) build -buildvcs=auto -o $(BIN) ./cmd/replicanode

.PHONY: run
run: build ## Serve Redis clients on 127.0.0.1:6380 from ./data (ARGS="--partitions 16" adds flags)
	./$(BIN) run $(ARGS)

.PHONY: bench
bench: build ## Run the headline experiment: backup freshness under four policies (under 5 minutes)
	./$(BIN) bench dup $(ARGS)

.PHONY: bench-sched
bench-sched: ## Measure the scheduler beside raw ants, pond and a goroutine per task
	cd bench/peers && $(GO) run ./sched $(ARGS)

.PHONY: bench-plog
bench-plog: ## Measure the private log beside other logs and the bare disk
	cd bench/peers && $(GO) run ./plog $(ARGS)

.PHONY: test
test: build fmt-check vet staticcheck ## Build, vet, staticcheck and all tests under the race detector
	$(GO) test -race -timeout 10m $(PKGS)

.PHONY: stress
stress: build ## Run the long versions of the tests (tens of minutes)
	REPLICANODE_STRESS=1 $(GO) test -race -timeout 90m $(PKGS)

.PHONY: lint
lint: fmt-check vet staticcheck ## Check formatting, vet and staticcheck

.PHONY: vet
vet:
	$(GO) vet $(PKGS)

.PHONY: staticcheck
staticcheck:
	$(GO) tool staticcheck $(PKGS)

.PHONY: fmt
fmt: ## Format all Go files
	gofmt -w $$(git ls-files '*.go')

.PHONY: fmt-check
fmt-check:
	@out=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$out" ]; then echo "not formatted (run make fmt):"; echo "$$out"; exit 1; fi

.PHONY: proto
proto: ## Regenerate the protobuf code (needs protoc: apt-get install protobuf-compiler)
	$(GO) generate ./peer/...

.PHONY: clean
clean: ## Remove built files (never ./data)
	rm -rf bin

# Targets: run, build, test, lint, bench, bench-scale, fuzz. All of them install what the machine lacks, or say what to install.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 20s

.PHONY: run build deps test lint bench bench-scale fuzz

# Serve for development on LISTEN, with a SoftHSM token, keys and credentials in DEV_DIR.
run: build
	@exec softhsm-config/run-dev.sh

build: deps
	CGO_ENABLED=1 go build -buildvcs=false -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/ ./cmd/...

deps:
	@softhsm-config/install-deps.sh

# -count=1, because the cache of results does not see what the tests build and run as processes.
test: deps
	@softhsm-config/install-deps.sh openssl
	CGO_ENABLED=1 go test -race -count=1 -timeout 40m ./...

lint:
	gofmt -l . | tee /dev/stderr | wc -l | grep -qx 0
	go vet ./...
	go run $(GOLANGCI_LINT) run ./...

# Print throughput and latency beside a floor; see docs/running.md.
bench: deps
	go run ./test/bench $(BENCH)

# Print what depends on the number of keys, with ten of them and with 100,000, wrapped in the store.
bench-scale: deps
	go run ./test/bench scale -home wrapped $(BENCH)

fuzz: deps
	test/fuzz.sh $(FUZZTIME)

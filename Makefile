# promdump. `make demo` first, `make test` second; the rest is for developers.

LDFLAGS  = -s -w
BIN      = bin
LINT     = .cache/golangci-lint

.PHONY: build agents page page-check docs demo test unit servers e2e screenshots recording bench bench-e2e lint vuln licences supply snapshot release-check check fuzz clean

build: agents ## bin/promdump, bin/kubectl-promdump
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/promdump ./cmd/promdump
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/kubectl-promdump ./cmd/kubectl-promdump
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/kubectl_complete-promdump ./cmd/kubectl_complete-promdump

# What runs in containers. A release makes more of them than it embeds, and their
# archive: make agents AGENTS='amd64 arm64 arm …' PACK='-embed amd64,arm64 -tar FILE'
AGENTS = amd64 arm64
PACK   =
agents: ## what kubectl-promdump embeds; it depends on the source and on Go, on nothing else
	@rm -rf $(BIN)/agents
	@set -e; for arch in $(AGENTS); do ( set -x; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch GOAMD64=v1 GOARM64=v8.0 GOARM=6 go build -trimpath -buildvcs=false \
			-ldflags '-s -w' -o $(BIN)/agents/promdump-agent-linux-$$arch ./cmd/promdump-agent ); done
	go run ./internal/agentbin/pack -o internal/agentbin/bin $(PACK) $(BIN)/agents/*

# The page is embedded as it is committed: only who changes its source needs Node.
PAGE = internal/query/page
page: $(PAGE)/web/node_modules/.made ## internal/query/page/dist from its source
	cd $(PAGE)/web && npm run --silent build && npm run --silent test

page-check: $(PAGE)/web/node_modules/.made ## what is embedded is what the source builds, byte for byte
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && cd $(PAGE)/web && npx tsc --noEmit && node build.mjs "$$out/dist" >/dev/null && npm run --silent test && \
		diff -r "$$out/dist" ../dist && echo 'the page is what its source builds'

$(PAGE)/web/node_modules/.made: $(PAGE)/web/package-lock.json
	cd $(PAGE)/web && npm ci --no-audit --no-fund && touch node_modules/.made

docs: ## docs/cli from the commands' own help
	go run ./internal/cli/manual -markdown docs/cli

# One go build with the same flags for both, so that no package is compiled twice.
demo: ## a small TSDB with an incident, and the main job done on it
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/promdump ./internal/tsdbtest/mktsdb
	@sh ./demo.sh

test: unit servers ## everything that needs Go alone, the real Prometheus included

unit:
	go test -timeout 15m ./...

# A module of its own: it builds a Prometheus server from its Go module. The test
# cache does not know that it runs bin/promdump, hence the count.
servers:
	cd e2e && go test -count=1 -timeout 15m . ./bench/... ./docs

# Longer, and nothing may be left out. Kubernetes is built the first time: some
# ten minutes. The browser is Debian's chromium.
e2e: ## real servers under load, a real browser, a real Kubernetes; root on Linux
	cd e2e && PROMDUMP_E2E_SOAK=$${PROMDUMP_E2E_SOAK:-3m} PROMDUMP_E2E_REQUIRE_OLD=1 PROMDUMP_E2E_REQUIRE_STRACE=1 PROMDUMP_E2E_REQUIRE_MOUNT=1 go test -count=1 -timeout 25m -v .
	cd e2e && PROMDUMP_E2E_REQUIRE_BROWSER=1 go test -count=1 -timeout 10m -v ./browser
	cd e2e && PROMDUMP_E2E_REQUIRE_KUBE=1 go test -count=1 -timeout 45m -v ./kube

screenshots: ## the pictures in docs/img, and more beside them to look at
	cd e2e && PROMDUMP_E2E_REQUIRE_BROWSER=1 PROMDUMP_E2E_SCREENSHOTS=$(CURDIR)/bin/screenshots go test -count=1 -run Screenshots ./browser
	@mkdir -p docs/img && cp bin/screenshots/overview.png bin/screenshots/explore.png bin/screenshots/alerts.png docs/img/

recording: ## docs/img/demo.svg: what the main commands print, as a picture
	cd e2e && go test -count=1 -run '^TestRecord$$' ./docs -update

bench: build ## speed and memory, as ratios to cat, tar and promtool
	cd e2e && go run ./bench

bench-e2e: ## speed through exec, and what clients of the server notice, on the real Kubernetes
	cd e2e && PROMDUMP_E2E_BENCH=1 PROMDUMP_E2E_REQUIRE_KUBE=1 go test -count=1 -timeout 60m -v -run "^TestBench(Latency)?$$" ./kube

lint: $(LINT) ## gofmt, vet and linters, pinned in tools/go.mod
	@test -z "$$(gofmt -l . | tee -a /dev/stderr)" || { echo 'gofmt -w these files' >&2; exit 1; }
	go vet ./...
	cd e2e && go vet ./...
	GOOS=windows go vet ./cmd/promdump
	$(LINT) run ./...
	cd e2e && $(abspath $(LINT)) run --config ../.golangci.yml ./...

$(LINT): tools/go.mod tools/go.sum
	@mkdir -p $(@D)
	go build -C tools -o $(abspath $@) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# Programs for releases: goreleaser with what reads a program's modules, and krew, which
# needs older libraries.
RELEASE = .cache/goreleaser .cache/cyclonedx-gomod .cache/krew .cache/validate-krew-manifest
.cache/goreleaser .cache/cyclonedx-gomod: tools/release/go.mod tools/release/go.sum
	@mkdir -p $(@D)
	go build -C tools/release -o $(abspath $@) $$(go -C tools/release list tool | grep '/$(@F)\(/v[0-9]*\)\?$$')
.cache/krew .cache/validate-krew-manifest: tools/release/krew/go.mod tools/release/krew/go.sum
	@mkdir -p $(@D)
	go build -C tools/release/krew -o $(abspath $@) sigs.k8s.io/krew/cmd/$(@F)

VULNDB ?=
vuln: ## known vulnerabilities that the programs reach; VULNDB=https://vuln.go.dev has today's
	cd tools/vuln && go run . -db '$(VULNDB)' ../..

licences: $(PAGE)/web/node_modules/.made ## THIRD_PARTY_NOTICES: what the programs are made of, and under which licences
	cd tools/licences && go run . ../..

# What others made and we pass on: its licences, its known faults, its bytes.
supply: $(PAGE)/web/node_modules/.made vuln
	cd tools/licences && go run . -check ../..
	@set -e; for dir in . e2e tools tools/licences tools/vuln tools/release tools/release/krew; do ( set -x; go -C $$dir mod verify ); done

snapshot: $(RELEASE) ## dist/ as a release has it, for all systems, without a network; judged
	sh tools/release/snapshot.sh
	cd tools/release && PROMDUMP_E2E_REQUIRE_RELEASE=1 PROMDUMP_E2E_DIST=$(CURDIR)/dist go test -count=1 -v ./check

release-check: $(RELEASE) ## the same for this machine's system, twice, from two directories: byte for byte
	cd tools/release && PROMDUMP_E2E_REQUIRE_RELEASE=1 go test -count=1 -timeout 20m -v ./check

FUZZTIME ?= 15s
fuzz: ## each fuzz target for FUZZTIME
	@set -e; go list ./... | while read -r pkg; do \
		for f in $$(go test -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); do \
			echo "$$pkg $$f"; out=$$(go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$pkg" 2>&1) || { echo "$$out"; exit 1; }; \
		done; \
	done

check: lint supply page-check build test release-check e2e ## all that CI does; needs npm
	$(MAKE) fuzz FUZZTIME=5s

clean:
	rm -rf $(BIN) dist .cache internal/agentbin/bin/*.gz internal/agentbin/bin/SHA256SUMS $(PAGE)/web/node_modules

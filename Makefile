# Everything a person runs by hand. `make` alone lists the targets; CI runs .ci/run, which is test, lint and race.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The one place for Go's flags: DuckDB speaks Arrow in every build, test and lint.
export GOFLAGS := -tags=duckdb_arrow
# What the scripts install lives outside the tree.
export HEADRACE_CACHE ?= $(HOME)/.cache/headrace
# Recordings, where there are any.
HEADRACE_DATA ?= $(abspath ../shared/data)
export HEADRACE_DATA

UP_ARGS ?=
BENCH_ARGS ?=
TEST_FLAGS ?= -timeout=20m
FUZZ_TIME ?= 5s

##@ Run
up: build ## build, then run every role on loopback over a simulated plant (UP_ARGS="…" for other flags)
	exec bin/headrace up $(UP_ARGS)

build: ## build bin/headrace
	go build -o bin/headrace ./cmd/headrace

build-edge: ## build the edge agent alone, static, for linux on amd64 and arm64
	@for arch in amd64 arm64; do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath -ldflags "-s -w" -o bin/headrace-edge-linux-$$arch ./cmd/headrace-edge; \
	  size=$$(stat -c %s bin/headrace-edge-linux-$$arch); echo "bin/headrace-edge-linux-$$arch: $$((size >> 20)) MiB"; \
	  if [ $$size -gt $$((25 << 20)) ]; then echo "larger than 25 MiB"; exit 1; fi; \
	done

##@ Test
test: programs packages test-unit test-e2e test-interop test-kafka test-brokers test-ui ## run every test there is: unit, end-to-end, interop, Kafka, brokers, page

test-unit: packages ## the tests that need no process of their own
	@scripts/gotest.sh unit $(TEST_FLAGS)

test-e2e: packages ## the built binary from end to end, with crashes and full disks
	@scripts/gotest.sh e2e $(TEST_FLAGS)

test-interop: packages ## foreign clients and readers against our broker, log and tables
	@scripts/gotest.sh interop $(TEST_FLAGS)

test-kafka: programs ## one body over the embedded spine, Apache Kafka, Kafka with SASL and TLS, three brokers
	@scripts/gotest.sh kafka $(TEST_FLAGS)

test-brokers: programs ## one body over the embedded broker, Mosquitto, HiveMQ CE and a cluster of three
	@scripts/gotest.sh brokers $(TEST_FLAGS)

test-ui: packages ## the page in Chromium: a value changes, its age grows, no accessibility violation
	@scripts/gotest.sh ui $(TEST_FLAGS)

race: ## the race detector over everything that does not compile DuckDB in
	@scripts/gotest.sh race $(TEST_FLAGS)

fuzz-smoke: ## every fuzz target for FUZZ_TIME (5 s)
	@scripts/fuzz.sh $(FUZZ_TIME)

soak: packages ## half an hour of silent networks, six hours offline, kill -9 again and again, twenty plants, a plant day (HEADRACE_SEED repeats a run)
	HEADRACE_SOAK=1 go test ./test/silent -count=1 -v -timeout=2h
	HEADRACE_SOAK=1 go test ./test/e2e -run 'TestKillNine|TestEdgeKillNine|TestSpineKills|TestPlantBecomesOneOrder|TestHealthyPlantIsQuiet' -count=1 -v -timeout=3h
	HEADRACE_SOAK=1 go test ./test/kafka -run 'TestWayOverEveryKafka/Apache_Kafka_killed' -count=1 -v -timeout=2h
	HEADRACE_SOAK=1 go test ./edge/outbox -run TestSixHoursOffline -count=1 -v -timeout=1h

bench: build ## edge, spine and fleet against their goals, the rival beside them, and the spine beside Apache Kafka (BENCH_ARGS="--output json")
	@for name in edge spine fleet; do bin/headrace bench $$name $(BENCH_ARGS) || [ $$? = 1 ]; done
	HEADRACE_BENCH=1 go test ./test/kafka -run TestBenchBesideKafka -count=1 -v -timeout=10m

test-spark: ## not there yet: they say so and fail
	@echo "make $@: there is no such suite yet"; exit 2

##@ Check
lint: ## golangci-lint, the generated page, the scripts
	@scripts/lint.sh
	@scripts/ui-check.sh

fmt: ## format the Go files
	@scripts/lint.sh fmt

docs: ## check that every link of the documentation leads somewhere
	go test ./internal/arch -run 'TestLinks' -count=1

programs: ## tell (as root in CI: install) what Debian must provide
	@scripts/programs.sh

packages: ## install the tests' Python and Node packages into the cache
	@scripts/venv.sh || echo "what needs the Python packages will skip, or fail where it is required"
	@scripts/npm.sh >/dev/null || echo "what needs the Node packages will skip, or fail where it is required"

##@ Page
ui: ## build ui/dist, which is committed and embedded
	@scripts/ui-build.sh ui/dist

ui-check: ## ui/dist equals a fresh build of its source
	@scripts/ui-check.sh

ui-dev: ## the page against a mock server, for work on the page alone
	@scripts/npm.sh >/dev/null
	node ui/dev/mock.mjs

##@ Help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up build build-edge test test-unit test-e2e test-interop test-ui race fuzz-smoke test-kafka test-brokers test-spark soak bench \
	lint fmt docs programs packages ui ui-check ui-dev help

# Everything a person or a CI machine does with keepalive. `make help` lists it.

CARGO     ?= cargo
BINARY    := dist/keepalive
SIZE_MAX  := 1048576
SEEDS     ?= 10000
IMAGE     ?= keepalive

.DEFAULT_GOAL := help
.PHONY: help run test build man check fmt clippy doc deny size sim bench image clean

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: build ## Build keepalive and run examples/quickstart with it, as PID 1 of a PID namespace; Ctrl-C stops it
	@sh examples/quickstart/run.sh $(BINARY)

test: build ## All tests; what needs root or a Docker Engine says so where it cannot run
	KEEPALIVE_DIST=$(CURDIR)/$(BINARY) $(CARGO) test --locked --no-fail-fast

build: ## dist/keepalive: the release binary, static and stripped; dist/keepalive-tools for `keepalive import` and `completions`
	@tools/need rust linker target source
	CARGO=$(CARGO) tools/build dist

man: build ## dist/keepalive.1: the manual page
	$(BINARY) completions man >dist/keepalive.1

check: fmt clippy doc deny size ## Formatting, lints, documentation, dependencies, size: what CI wants to see besides `make test`

fmt:
	@tools/need rust rustfmt
	$(CARGO) fmt --check

clippy:
	@tools/need rust linker target clippy
	$(CARGO) clippy --locked --all-targets -- -D warnings

# Descriptions of rooms link to what is private in them: these pages are for people who work on keepalive.
doc:
	@tools/need rust linker target
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --locked --no-deps --document-private-items

# cargo-deny knows the advisories too. It takes longer to build than all the rest of the checks, so that it is used
# where it is, and the test is what everybody runs: licences, sources, duplicates, a reason for each dependency.
deny:
	$(CARGO) test --locked --test dependencies
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check; \
	else echo "cargo-deny is not installed: known advisories were not looked up (cargo install --locked cargo-deny)"; fi

size: build ## The size of dist/keepalive, which must stay below 1 MiB, and that it is static
	@tools/size $(BINARY) $(SIZE_MAX)

sim: ## The supervisor in the simulator, as many seeds as you like: make sim SEEDS=100000
	@tools/need rust linker target
	SEEDS=$(SEEDS) $(CARGO) test --profile sim --locked --test sim seeds:: -- --nocapture

bench: build ## Measure against the peers that are installed, as root: make bench QUICK=1 takes some five minutes
	@tools/need linker python
	@QUICK=$(QUICK) python3 -B benches/bench.py $(BINARY)

image: build ## A Docker image, named keepalive, that holds only /sbin/keepalive and /sbin/keepalive-tools
	@tools/need docker
	@docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0; \
	docker build --file docker/scratch.Dockerfile --tag $(IMAGE) dist

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf dist

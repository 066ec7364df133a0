# Every target does the set-up it needs; deploy/setup.sh takes milliseconds when nothing is to do.
SHELL := /bin/sh
BIN := .venv/bin
LOCK := $(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate --python-version 3.11 $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-plot test test-v2 sim sim-nightly check check-protos format bench lock wheel install clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-22s %s\n", $$1, $$2 }'

setup: ## Debian packages where missing, .venv from the lock, .venv/bin/shoal
	@sh deploy/setup.sh

demo: setup ## a cluster of three nodes on this machine: scale, kill, heal, grow with a load, clean away (needs root)
	@$(BIN)/python -m deploy.demo

demo-plot: setup ## the demo's growing half, recorded: docs/growing.svg (needs root)
	@seen=$$(mktemp); $(BIN)/python -m deploy.demo --nodes 2 --only grow --record $$seen && $(BIN)/python -m deploy.demo_plot $$seen docs/growing.svg; \
		code=$$?; rm -f $$seen; exit $$code

test: check ## everything: check, then unit, contract, root and end-to-end tests (without root: what needs none)
	@sh tests/run.sh

test-v2: setup ## the cgroup tests on a machine with cgroup v2, emulated, alone and below systemd: half an hour (needs root)
	@sh tests/vm/run.sh
	@sh tests/vm/run.sh --systemd

sim: setup ## the cluster simulated from seeds: 10,000 faults, a few minutes (SEED=1 begins elsewhere)
	@$(BIN)/python -m shoal sim --seed $(or $(SEED),1) --runs 100 --nodes 6 --minutes 5 --faults 100

sim-nightly: setup ## 100,000 faults, the small model in every order with two faults, 5,000 nodes: an hour
	@sh tests/sim/nightly.sh $(SEED)

check: setup ## the quick rules: lint, types, import floors, generated code, shell syntax
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@for script in deploy/*.sh deploy/stopped/* tests/*.sh tests/sim/*.sh tests/vm/*.sh protos/*.sh bench/*.sh .ci/run demo; do sh -n $$script || exit 1; done
	@sh protos/generate.sh --check

check-protos: setup ## is the generated code the one of the .proto files?
	@sh protos/generate.sh --check

format: setup ## sort imports and mend what ruff can mend
	$(BIN)/ruff check -q --fix .

bench: setup ## every figure, medians over interleaved rounds, written to docs/benchmarks.md (needs root)
	@sh bench/run.sh

lock: setup ## rewrite the lock files after a change of dependencies (UPGRADE=1: newest versions)
	$(LOCK) --extra dev --extra etcd3 pyproject.toml -o requirements-dev.lock
	$(LOCK) -c requirements-dev.lock pyproject.toml -o requirements.lock
	printf 'grpcio-tools==1.78.*\nmypy-protobuf==5.1.*\nsetuptools<81\n' | $(LOCK) - -o requirements-protos.lock

wheel: setup ## dist/shoal-VERSION.whl
	@rm -rf dist
	$(BIN)/uv build --wheel -q --no-build-isolation -o dist .

install: wheel ## shoal on this machine for real: /opt/shoal, /usr/local/bin/shoal, systemd units (needs root; starts nothing)
	@sh deploy/install.sh

clean: ## labs, environments and caches away
	@sh deploy/clean.sh

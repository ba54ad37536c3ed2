# Every target sets up what it needs. `make` alone lists them.
#
#   make run    RUN_ARGS="--node-name a --mesh 127.0.0.1:7490"   more flags for the daemon
#   make test   TEST_ARGS="tests/crdt -k tombstone"              less than everything
#   make reqs   AREA=SYN                                         one area's requirements
#   make sim    SEEDS=1000 FROM=1 PROFILE=disk                   a longer campaign, on given seeds, of fewer faults

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough; PYTHON=/path/to/python3 chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
UV ?= uv
STAMP := $(VENV)/.set-up
RUN_ARGS ?=
TEST_ARGS ?=
AREA ?=
SEEDS ?= 100
FROM ?=
PROFILE ?= all
NODES ?= 5

.DEFAULT_GOAL := help
.PHONY: help setup run demo test lint style types contracts format bench sim reqs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv from nothing, or bring it up to date

# The stamp is written last, so that a set-up that broke off is taken up again. The project itself is installed
# editable, by the hatchling that the lock has just brought.
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "meshd needs Python 3.11, 3.12 or 3.13: install one, or name it with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "$(PYTHON) cannot make environments: on Debian, apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## start one daemon on loopback; its data stays in .data/
	@$(BIN)/meshd run --data-dir .data $(RUN_ARGS)

demo: setup ## three daemons and four small inference servers; Ctrl-C ends all of them
	@$(BIN)/python -m meshd.demo

test: setup ## all tests
	@$(BIN)/python -m pytest $(TEST_ARGS)

lint: style types contracts ## style, types and import contracts (make -k lint goes on past a failure)

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

format: setup ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## the figures; ONLY=map for one of latency, catch-up, idle, map, disk, turns, simulation
	@$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY))

sim: setup ## random fault schedules on simulated clusters; SEEDS=1000 FROM=1 PROFILE=all NODES=5
	@$(BIN)/python -m meshd.testing.campaign --seeds $(SEEDS) $(if $(FROM),--from $(FROM)) --profile $(PROFILE) \
		--nodes $(NODES)

reqs: setup ## every requirement with the tests that hold it
	@$(BIN)/python -m tests.support.reqs $(if $(AREA),--area $(AREA))

# Names, versions and hashes for every supported Python, and nothing that names a registry.
lock: ## work the lock file out anew
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --upgrade --quiet --extra dev pyproject.toml --output-file requirements.lock

clean: ## remove the environment, caches and .data/
	rm -rf $(VENV) .data .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist

# `make devcluster` and `make test` need python3 (3.10 or newer) with venv, make and git; nothing else.
# `make help` lists the rest.

PYTHON ?= python3
PY := .venv/bin/python
RUNTIME := .venv/.runtime
DEV := .venv/.dev
FUZZ := .venv-fuzz/.fuzz
ARGS ?=
SEEDS ?= 1000
RUNS ?= 1000000
FULL ?=

export PYTHON

.PHONY: help devcluster test faults fuzz scale reality bench bench-multihost lint types format wheel clean

help:  ## list what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 17

devcluster: $(RUNTIME)  ## run a herd and two agents here (KRAKEN_DATA=.devcluster says where data goes)
	@exec $(PY) -m krakentx.cli.main devcluster

test: $(DEV)  ## run the tests (ARGS="-k wire -x" picks some)
	@$(PY) -m pytest $(ARGS)

faults: $(DEV)  ## play SEEDS=1000 small swarms under random faults (ARGS="--first 5000 --jobs 1")
	@$(PY) -m krakentx.cli.faults $(SEEDS) $(ARGS)

scale: $(DEV)  ## a table of simulated swarms, held to the last figures (FULL=1: at full size, for hours)
	@$(PY) -m tests.bench.scale $(if $(FULL),--full) $(ARGS)

fuzz: $(FUZZ)  ## feed RUNS=1000000 hostile inputs to the readers of what strangers send (ARGS="--only wire")
	@.venv-fuzz/bin/python -m tests.fuzz.run $(RUNS) $(ARGS)

reality: $(DEV)  ## the simulator beside real agents on hosts of their own (as root): reality.json
	@$(PY) -m tests.bench.reality $(ARGS)

bench: $(DEV)  ## measure: prints a table and writes bench.json
	@$(PY) -m tests.bench.run $(ARGS)

bench-multihost: $(DEV)  ## the same on hosts of their own (as root): bench-multihost.json
	@$(PY) -m tests.bench.multihost $(ARGS)

lint: $(DEV)  ## ruff, its formatting, and shellcheck where it is installed
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@if command -v shellcheck >/dev/null; then git ls-files '*.sh' .ci/run | xargs shellcheck; fi

types: $(DEV)  ## mypy --strict on the package
	@$(PY) -m mypy

format: $(DEV)  ## let ruff format everything
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

wheel: $(DEV)  ## build a wheel into dist/
	@$(PY) -m build --wheel

$(FUZZ): setup.cfg pyproject.toml scripts/venv.sh
	@scripts/venv.sh fuzz .venv-fuzz
	@touch $@

clean:  ## remove what was built, and the virtual environment; data in .devcluster stays
	rm -rf .venv .venv-fuzz .fuzz build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache

$(RUNTIME): setup.cfg pyproject.toml scripts/venv.sh
	@scripts/venv.sh
	@touch $@

$(DEV): setup.cfg pyproject.toml scripts/venv.sh
	@scripts/venv.sh dev
	@touch $@ $(RUNTIME)

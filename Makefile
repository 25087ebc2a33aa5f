# Targets for a fresh machine with Python 3.11 or newer. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SPHINX := $(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going --conf-dir docs
SOURCES := analysis cluster docs harness supsup_core tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help run test test-long fuzz check docs format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## set up, then train and evaluate; ARGS="tasks=250 data=mnist" sets options
	@$(BIN)/python harness/scale.py $(ARGS)

test: $(VENV)/.test ## set up, then run the tests; ARGS="-k store" selects tests
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-long: $(VENV)/.test ## run the tests that take minutes: chaos, a cluster over ssh, lost nodes
	@$(BIN)/python -m pytest -m long $(ARGS)

fuzz: $(VENV)/.test ## run 300 absurd configurations and damaged runs; ARGS="--seed 1" draws others
	@$(BIN)/python benchmarks/fuzz.py $(ARGS)

check: $(VENV)/.dev ## check lint, format, types and the pages' links; change nothing
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@$(BIN)/mypy
	@$(SPHINX) -b dummy -D nb_execution_mode=off -d $(VENV)/doctrees/check . $(VENV)/pages

docs: $(VENV)/.dev ## execute the notebooks, and write the guide as HTML pages into build/docs
	@$(BIN)/python docs/options_page.py
	@$(BIN)/python docs/finders_page.py
	@$(SPHINX) -b html -d $(VENV)/doctrees/html . build/docs
	@echo build/docs/index.html

format: $(VENV)/.dev ## correct imports and layout
	@$(BIN)/ruff check --fix --quiet $(SOURCES)
	@$(BIN)/ruff format --quiet $(SOURCES)

clean: ## remove the virtual environment and the tools' caches; keep runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

# Each installation is done once, and again when a version or a dependency changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python must be 3.11 or newer, got $$($(PYTHON) --version): set PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: Python must have the module venv, got none: install it (Debian: apt install python3-venv)" >&2; exit 2; }

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV): this happens once and takes some minutes at most"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@$(INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(INSTALL) --editable '.[dev]'
	@touch $@

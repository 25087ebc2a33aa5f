# Everything a fresh machine with Python 3.11 or newer needs: `make help` lists it.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SPHINX := $(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going --conf-dir docs
SOURCES := analysis cluster docs harness supsup_core tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help run test test-long check docs format clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## set up, then train and evaluate; ARGS="tasks=250 data=mnist" passes overrides on
	@$(BIN)/python harness/scale.py $(ARGS)

test: $(VENV)/.test ## set up, then run the tests; ARGS="-k store" chooses among them
	@$(BIN)/python -m pytest $(ARGS)

test-long: $(VENV)/.test ## the tests that take minutes: chaos, a cluster over ssh, lost nodes
	@$(BIN)/python -m pytest -m long $(ARGS)

check: $(VENV)/.dev ## lint, format, types and the pages' links, without changing anything
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@$(BIN)/mypy
	@$(SPHINX) -b dummy -d $(VENV)/doctrees . $(VENV)/pages

docs: $(VENV)/.dev ## the guide as pages, in build/docs
	@$(SPHINX) -b html -d $(VENV)/doctrees . build/docs
	@echo build/docs/docs/index.html

format: $(VENV)/.dev ## put imports and layout right
	@$(BIN)/ruff check --fix --quiet $(SOURCES)
	@$(BIN)/ruff format --quiet $(SOURCES)

clean: ## remove the virtual environment and the tools' caches; runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

# Each is done once, and again when a version or a dependency changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer expected, got $$($(PYTHON) --version): set PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: Python's venv module expected (Debian: apt install python3-venv)" >&2; exit 2; }

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV): once, some minutes at most"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@$(INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(INSTALL) --editable '.[dev]'
	@touch $@

# The front door: the same targets for people and for CI. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
UV := uv==0.13.9
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ── The two commands ────────────────────────────────────────────────────────────────────────────────────

.PHONY: repro
repro: $(VENV)/run  ## train, score and report what params.yaml says (dvc repro)
	python -m src.params
	dvc repro

.PHONY: test
test: $(VENV)/test  ## style, types, layers and the fast tests
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	pytest -m "not slow"

# ── More ────────────────────────────────────────────────────────────────────────────────────────────────

.PHONY: test-slow
test-slow: $(VENV)/test  ## the end-to-end tests that take minutes
	pytest -m slow

.PHONY: format
format: $(VENV)/test  ## put the code into its usual form
	ruff format .
	ruff check --fix .

.PHONY: benchmark
benchmark: $(VENV)/test  ## the README's figures: speed and memory, side by side on this machine
	python -m benchmark.training
	python -m benchmark.prepare

.PHONY: fashion-full
fashion-full: $(VENV)/run  ## bring all 60,000 training images (IDX=FOLDER: from IDX files) and track them
	python -m datasets.make_fashion datasets/fashion-full $(if $(IDX),--idx $(IDX))
	dvc add datasets/fashion-full

.PHONY: lock
lock: $(VENV)/uv  ## write requirements.lock and test/requirements.lock from the direct dependencies
	uv pip compile $(LOCK) -o requirements.lock requirements.txt
	uv pip compile $(LOCK) -c requirements.lock -o test/requirements.lock test/requirements.txt
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
        $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean:  ## remove the environment and everything built
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache

# ── The environment: made from the locks, renewed when they change ──────────────────────────────────────

$(VENV)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sluice needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	touch $@

$(VENV)/run: requirements.lock | $(VENV)/uv
	uv pip install --python $(VENV) --require-hashes --requirements requirements.lock
	touch $@

$(VENV)/test: test/requirements.lock | $(VENV)/uv
	uv pip install --python $(VENV) --require-hashes --requirements test/requirements.lock
	touch $@ $(VENV)/run

# make reproduce: from nothing to the report.   make test: from nothing to the test results.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
export MLFLOW_DISABLE_TELEMETRY = true
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: help setup reproduce test lint bench up lock clean

help:
	@echo "make reproduce   set up what is missing, then run the whole pipeline: music in, report out"
	@echo "make test        set up, then run all tests (a tiny run of the whole pipeline among them)"
	@echo "make lint        set up, then ruff, mypy, and whether dvc.yaml is as params.yaml says"
	@echo "make bench       set up, then measure against what people use today; writes docs/benchmarks.md"
	@echo "make up          MLflow server, Prefect server and deployments on 127.0.0.1; Ctrl-C stops them"
	@echo "make setup       .venv, the locked packages, this package"

# The stamp makes set-up a no-op until the lock or the package's metadata changes.
setup: $(VENV)/.complete

$(VENV)/.complete: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

reproduce: setup
	dvc repro
	@echo "report: $(CURDIR)/report/report.html"

test: setup
	pytest -n 2 --dist loadfile --no-loadscope-reorder  # files beside each other, for two cores, the longest first

lint: setup
	ruff check .
	ruff format --check .
	mypy
	mert plan --check

bench: setup
	python -m benchmarks

up: setup
	mert up

# For maintainers: needs uv on the PATH. Present pins are kept unless pyproject.toml forbids them.
lock:
	uv pip compile --no-config --quiet --extra dev --generate-hashes --no-header --no-annotate --strip-extras \
		--python-version 3.11 --python-platform linux \
		--constraint requirements.lock --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .ruff_cache .mypy_cache .pytest_cache

# `make demo` and `make test` need nothing but Python 3.10 or newer and a package index.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.PHONY: help demo test check coverage docs test-browser test-frameworks screenshot lint types bench conformance format map
IN ?= guardrail training/guardrail_training training/research benchmarks examples

help:
	@echo "make demo    see the guard at work on a dozen texts"
	@echo "make test    lint, types, every test, the wheel's contents"
	@echo "make check   lint, types, and the quick tests of text and engine: for the inner loop"
	@echo "make coverage  the share of the package's lines and branches that tests reach; fails below 95 and 90 %"
	@echo "make test-browser  the playground page in headless Chromium (Debian: chromium chromium-driver)"
	@echo "make test-frameworks  docs/frameworks.md and its adapters with the real packages, in an environment of their own"
	@echo "make screenshot  takes the picture of the playground in docs/ anew"
	@echo "make docs    builds the documentation into site/"
	@echo "make bench   speed of detector, guard, batches and streams, into benchmarks/results/"
	@echo "make conformance  our laws on other packages, each in an environment of its own below .conformance"
	@echo "make map     what each module is for; IN=FOLDER for one folder"
	@echo "make format  put the code into the house layout"

demo: .venv/installed
	$(BIN)/guardrail models pull
	$(BIN)/python examples/demo.py

test: lint types
	$(BIN)/guardrail models pull
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

check: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses 2 -m "not base and not slow" tests/text tests/engine tests/test_policy.py tests/test_outcome.py

coverage: .venv/installed-dev
	$(BIN)/guardrail models pull
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --ignore tests/training --cov --cov-report json:coverage.json
	$(BIN)/python -m tests.coverage_gate coverage.json

test-browser: .venv/installed-dev
	$(BIN)/python -m pytest -m browser

test-frameworks: .venv-frameworks/installed
	LITELLM_LOCAL_MODEL_COST_MAP=True OMP_NUM_THREADS=1 .venv-frameworks/bin/python -m pytest -o filterwarnings=default tests/frameworks

screenshot: .venv/installed-dev
	$(BIN)/guardrail models pull
	$(BIN)/python -m tests.integrations.server.screenshot docs/playground.png

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/guardrail models pull
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.batch
	$(BIN)/python -m benchmarks.concurrent
	$(BIN)/python -m benchmarks.stream
	$(BIN)/python -m benchmarks.detector
	$(BIN)/python -m benchmarks.texts
	$(BIN)/python -m benchmarks.context
	$(BIN)/python -m benchmarks.spinning

conformance: .venv/installed-dev
	$(BIN)/python -m benchmarks.conformance --environments .conformance

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

map:
	@$(PYTHON) -m tests.map $(IN)

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) .
	@touch $@

# Both packages at once: each requires the other in this tree's version, which no index has.
.venv/installed-dev: pyproject.toml training/pyproject.toml training/hatch_build.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) '.[dev]' --editable training
	@touch $@

.venv-frameworks/installed: pyproject.toml tests/frameworks/requirements.txt
	test -x .venv-frameworks/bin/python || $(PYTHON) -m venv .venv-frameworks
	.venv-frameworks/bin/python -m pip install --disable-pip-version-check --requirement tests/frameworks/requirements.txt --editable '.[server]'
	@touch $@

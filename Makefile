# `make help` lists the targets. All work in an environment of their own, made by `make setup` on first use:
#   VENV=DIR          where it lies (default .venv)
#   PYTHON=CMD        the Python that makes it (default: the first of 3.10 to 3.13 that is found)
#   TORCH_INDEX=URL   package index for torch and torchvision alone, for a certain CUDA build or the CPU build
#   PIP_ARGS="..."    further arguments of every `pip install`
#   MAX_JOBS=N        compiler processes at once (default: one a core)
#   TEST_PROCESSES=N  processes that run tests, each with up to 3.5 GB (default 2; 0: this one)
VENV ?= .venv
PYTHON ?=
TORCH_INDEX ?=
PIP_ARGS ?=
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
DEMO_ARGS ?=

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := $(VENV)/bin
# All tests of a file run in one process, so that they share what the file's fixtures make.
PARALLEL = -n $(TEST_PROCESSES) --dist loadfile
export VENV PYTHON TORCH_INDEX PIP_ARGS

.PHONY: setup demo test test-all lint format typecheck bench clean help

setup: ## make or update the environment (fast where nothing changed)
	@bash tools/setup_env.sh

demo: setup ## train a tiny DTN detector and its LayerNorm twin on a generated set and compare them (DEMO_ARGS=...)
	@$(BIN)/dtn-det demo $(DEMO_ARGS)

test: lint typecheck ## lint, type check and all tests but the slow ones (PYTEST_ARGS=...)
	@echo "[test] pytest, without the slow tests"
	@$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)

test-all: lint typecheck ## as test, with the slow tests and more examples of the tests by properties
	@echo "[test] pytest, with the slow tests"
	@$(BIN)/python -m pytest --hypothesis-profile=full $(PARALLEL) $(PYTEST_ARGS)

lint: setup ## ruff: rules and format
	@echo "[test] ruff check, ruff format --check"
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .

format: setup ## put the code into ruff's format and mend what it can
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

typecheck: setup ## mypy, strict, on the package
	@echo "[test] mypy"
	@$(BIN)/python -m mypy

bench: setup ## the benchmarks that need no files of yours, each a ratio against a rival
	@for script in layer swin_backbone vit_blocks converted_vit spt_lsa classifier_options sequence corruptions; do \
		echo "[bench] $$script"; $(BIN)/python "benchmarks/$$script.py"; done

clean: ## remove build products and caches (the environment stays: rm -rf .venv)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -path "./$(VENV)" -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  variables: VENV, PYTHON, TORCH_INDEX, PIP_ARGS, MAX_JOBS, TEST_PROCESSES (see the top of the Makefile)"

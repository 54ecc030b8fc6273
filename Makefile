# The commands of this project; `make` alone lists them. They need make and a Python from 3.11 on.
#
#   make run ARGS="--port 9000"     arguments for the server (or for pytest, with `make test`)
#   make test PYTHON=python3.13     another Python than the first one found; after `make clean`

VENV := .venv
BIN := $(VENV)/bin
ARGS :=
PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install
LOWEST := .venv-lowest
LOCKING := .venv-lock

# Else each of the programs that the tests start compiles Seline again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-lowest prove peers lint lock dev clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
	    while IFS='|' read -r name does; do printf '  make %-12s %s\n' "$$name" "$$does"; done

run: $(VENV)/.installed ## install what is missing, then serve ./data
	@exec $(BIN)/seline serve $(ARGS)

test: $(VENV)/.compiled ## the tests (under 5 minutes)
	@$(BIN)/python -m pytest -m "not prove" -n auto --dist worksteal $(ARGS)

test-lowest: $(LOWEST)/.installed ## most of the tests, on the oldest libraries allowed
	@$(LOWEST)/bin/python -m pytest -m "not prove" -n auto --dist worksteal --ignore=tests/acceptance --ignore=tests/faults --ignore=tests/hints --ignore=tests/style $(ARGS)

prove: $(VENV)/.installed-dev ## the long tests and the benchmarks; SELINE_PROVE_MINUTES limits them
	@rm -f .prove/figures.jsonl
	@$(BIN)/python -m pytest -m prove -rfEs --timeout=1800 $(ARGS) || \
	    { code=$$?; [ $$code -eq 5 ] && echo "No long tests were selected." || exit $$code; }
	@$(BIN)/python -m tests.proof.report
	@env -u SELINE_PROVE_MINUTES $(BIN)/python -m tests.benchmarks $(if $(SELINE_PROVE_MINUTES),saves journal reads start puts)

peers: $(VENV)/.installed-bench ## Seline beside other stores on this machine; writes docs/benchmarks.md
	@$(BIN)/python -m tests.benchmarks peers

lint: $(VENV)/.installed-dev ## ruff, mypy, pyright and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/pyright
	$(BIN)/lint-imports

dev: $(VENV)/.installed-dev ## only install what the tests and linters need

lock: $(LOCKING)/.installed ## resolve every lock again from pyproject.toml
	@set -e; \
	compile() { $(LOCKING)/bin/uv --quiet pip compile pyproject.toml --all-extras --upgrade --universal \
	    --python-version 3.11 --custom-compile-command "make lock" "$$@" >/dev/null; }; \
	compile --generate-hashes --output-file requirements.lock; \
	compile --generate-hashes --group dev --constraints requirements.lock \
	    --output-file requirements-dev.lock; \
	compile --generate-hashes --group bench --constraints requirements-dev.lock \
	    --output-file requirements-bench.lock; \
	compile --resolution lowest-direct --no-deps --output-file $(LOCKING)/lowest.txt; \
	compile --generate-hashes --group test --constraints $(LOCKING)/lowest.txt \
	    --output-file requirements-lowest.lock

clean: ## remove environments and caches; ./data is never touched
	rm -rf $(VENV) $(LOWEST) $(LOCKING) .prove build dist .mypy_cache .ruff_cache .pytest_cache \
	    .hypothesis .import_linter_cache
	find seline workers tests -name __pycache__ -prune -exec rm -rf {} +

# A stamp file marks an environment that is as its lock requires; the next run skips the installation.

$(VENV)/.installed: $(BIN)/python requirements.lock pyproject.toml
	@echo "Installing Seline into $(VENV), this once (less than a minute) ..."
	@$(INSTALL) --require-hashes --requirement requirements.lock
	@$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python requirements-dev.lock pyproject.toml
	@echo "Installing Seline, its tests and its linters into $(VENV), this once ..."
	@$(INSTALL) --no-compile --require-hashes --requirement requirements-dev.lock
	@$(INSTALL) --no-deps --editable .
	@touch $(VENV)/.installed $@

# What the tests import, once: else each of the processes that share the tests compiles all of it.
$(VENV)/.compiled: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -m "not prove" --collect-only -qq >/dev/null || true  # the tests name the error
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev requirements-bench.lock
	@$(INSTALL) --require-hashes --requirement requirements-bench.lock
	@touch $@

$(LOWEST)/.installed: $(LOWEST)/bin/python requirements-lowest.lock pyproject.toml
	@echo "Installing the oldest libraries into $(LOWEST), this once ..."
	@$(INSTALL:$(BIN)%=$(LOWEST)/bin%) --require-hashes --requirement requirements-lowest.lock
	@$(INSTALL:$(BIN)%=$(LOWEST)/bin%) --no-deps --editable .
	@touch $@

$(LOCKING)/.installed: $(LOCKING)/bin/python
	@$(INSTALL:$(BIN)%=$(LOCKING)/bin%) uv
	@touch $@

# A version manager's shim may exist without a Python behind it, so each candidate is run.
%/bin/python:
	@for python in $(PYTHONS); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Making $* with $$("$$python" --version) ..."; \
	        "$$python" -m venv --clear $* && exit 0; \
	        rm -rf $*; \
	        echo "$$python cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)." >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "Seline needs Python 3.11 or newer; tried: $(PYTHONS)." >&2; \
	echo "Install one (https://www.python.org/downloads/), or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1

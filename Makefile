# `make help` lists the commands. The first one that needs it makes .venv and installs into it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(READY) ## make .venv and install groundup with everything it needs

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("groundup needs Python 3.11 or newer, not %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# timm in a folder of its own: see tests/torchvision_shim.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --target $(VENV)/vision --upgrade timm torchvision
	@touch $@

demo: $(READY) ## train with and without residual warmup, side by side, and write a report (6 min)
	$(BIN)/groundup compare quickstart

test: $(READY) ## run the tests
	@# A worker for each core; more threads would only wait for each other. Bytecode is kept whatever
	@# the environment says: set-up makes none, and each process would compile PyTorch anew. Files
	@# in the order of tests/conftest.py, the long ones first: xdist's own has those of few tests last.
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= \
		$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(READY) ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## format the code and sort the imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and caches (not runs/ and data/)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

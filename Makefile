# Everything from a fresh checkout with only a package index in reach:
#   make demo   an environment, the package, `nearfar demo`
#   make test   an environment, the package with its test extra, the tests: a few minutes
#   make test-all  those and the full products of samplers, losses, geometries and devices
#   make docs   the documentation site, in build/site/html
#   make bench  an environment of its own with nearfar and its peers, all benchmarks but one:
#   make dist   the sdist and the wheel in dist/, built and checked
#   make release-check  both in clean environments of each Python, with the lowest and the newest
#               versions of the dependencies: CONTRIBUTING.md
#   make bench-scale  100 million rows prepared, beside polars and DuckDB; 3 GB of disk
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
BENCH  ?= .venv-bench
RELEASE ?= .venv-release

.PHONY: demo docs test test-all slow lint types check bench bench-scale dist release-check clean

demo: $(VENV)/.core
	$(BIN)/nearfar demo

docs: $(VENV)/.docs
	$(BIN)/python website/make_site.py

# No two workers compile the same kernel: tests/warm.py has compiled what several files use.
PYTEST  = $(BIN)/python -m pytest -n auto --dist loadfile

test: $(VENV)/.test
	$(BIN)/python tests/warm.py
	$(PYTEST)

# All but the slow ones: those of `test`, and then the rest.
test-all: test
	$(PYTEST) -m 'full and not slow'

slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.lint
	$(BIN)/mypy

check: lint types test

bench: $(BENCH)/.bench
	$(BENCH)/bin/python benchmarks/run.py

bench-scale: $(BENCH)/.bench
	$(BENCH)/bin/python benchmarks/scale.py --ids int64 text

# The two peers in lines of their own may fail to install; the benchmark then says so in their rows.
$(BENCH)/.bench: BIN := $(BENCH)/bin
$(BENCH)/.bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(PIP) -e '.[bench]'
	-$(PIP) lightfm-next==1.19.0
	-$(PIP) --no-deps --ignore-requires-python PytorchCML==0.3.1
	touch $@

$(RELEASE)/.tools: Makefile
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check \
	    'build>=1.2' 'check-wheel-contents>=0.6' 'twine>=6.1' 'uv>=0.9'
	touch $@

DIST_OF = pyproject.toml constraints.txt $(wildcard *.md) LICENSE CITATION.cff tools/check_dist.py \
    $(shell find src tests docs benchmarks research -type f -not -path '*/__pycache__/*')

# The wheel is the same for the same files: what has passed with it stays passed.
dist: build/release/.dist

build/release/.dist: $(RELEASE)/.tools $(DIST_OF)
	rm -rf dist
	$(RELEASE)/bin/python -m build
	$(RELEASE)/bin/twine check --strict dist/*
	$(RELEASE)/bin/check-wheel-contents dist/*.whl
	$(RELEASE)/bin/python tools/check_dist.py
	mkdir -p build/release
	touch $@

# One environment is one target, `release-3.12-lowest`, and is not repeated once it has passed.
RELEASE_PYTHONS ?= 3.11 3.12 3.13
RELEASE_WORKERS ?= 2
RELEASE_TORCH   ?= 2.13.0
RELEASE_TORCH_PYTHONS ?= 3.11
ENVIRONMENTS = $(foreach python,$(RELEASE_PYTHONS),$(python)-lowest $(python)-newest)
.PHONY: $(ENVIRONMENTS:%=release-%)

release-check: $(ENVIRONMENTS:%=release-%)

$(ENVIRONMENTS:%=release-%): release-%: build/release/%/.passed

build/release/%/.passed: build/release/.dist tools/release_environment.py
	PATH=$(abspath $(RELEASE)/bin):$$PATH nice -n 10 $(RELEASE)/bin/python \
	    tools/release_environment.py $(subst -, ,$*) --workers $(RELEASE_WORKERS) \
	    $(addprefix --torch ,$(if $(filter $(RELEASE_TORCH_PYTHONS:%=%-%),$*),$(RELEASE_TORCH)))
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[docs]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.lint: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) $(RELEASE) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Everything from a fresh checkout with only a package index in reach:
#   make demo   an environment, the package, `nearfar demo`
#   make test   an environment, the package with its test extra, the tests: a few minutes
#   make test-all  those and the full products of samplers, losses, geometries and devices
#   make bench  an environment of its own with nearfar and its peers, all benchmarks but one:
#   make bench-scale  100 million rows prepared, beside polars and DuckDB; 3 GB of disk
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
BENCH  ?= .venv-bench

.PHONY: demo test test-all slow lint types check bench bench-scale clean

demo: $(VENV)/.core
	$(BIN)/nearfar demo

# No two workers compile the same kernel: tests/warm.py has compiled what several files use.
PYTEST  = $(BIN)/python -m pytest -n auto --dist loadfile

test: $(VENV)/.test
	$(BIN)/python tests/warm.py
	$(PYTEST)

test-all: $(VENV)/.test
	$(BIN)/python tests/warm.py
	$(PYTEST) -m 'not slow'

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

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.lint: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) .pytest_cache .mypy_cache .ruff_cache .hypothesis

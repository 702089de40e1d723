# Everything from a fresh checkout with only a package index in reach:
#   make demo   an environment, the package, `nearfar demo`
#   make test   an environment, the package with its test extra, the test suite
#   make bench  an environment of its own with nearfar and its peers, all benchmarks but one:
#   make bench-scale  100 million rows prepared, beside polars and DuckDB; 3 GB of disk
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
BENCH  ?= .venv-bench

.PHONY: demo test slow lint types check bench bench-scale clean

demo: $(VENV)/.core
	$(BIN)/nearfar demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist loadfile

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

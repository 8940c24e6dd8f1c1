# Every target makes what it needs; PYTHON picks the interpreter for a new .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

# FASTPOP_BENCH=small runs tiny shapes, to see that all of it works.
BENCH := --import-mode=importlib --override-ini=addopts= --override-ini=pythonpath=bench \
	-o python_files='bench_*.py' --benchmark-only --benchmark-quiet -v -rs

SOURCES := setup.py pyproject.toml constraints.txt $(shell find csrc -type f 2>/dev/null)

.PHONY: demo test check bench test-slow test-gpu bench-gpu gpu-day install clean

demo: $(VENV)/.demo
	$(BIN)/fastpop demo --out demo

test: $(VENV)/.test
	$(BIN)/pytest --import-mode=importlib

test-slow: $(VENV)/.test
	$(BIN)/pytest --import-mode=importlib -m slow

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy fastpop
	$(BIN)/mypy kernels

bench: $(VENV)/.bench
	$(BIN)/pytest $(BENCH) --benchmark-json=bench/records/latest.json bench

# On a machine with a GPU: uses the interpreter at hand (its own torch and triton), installs nothing.
test-gpu:
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation -e .
	FASTPOP_REQUIRE_GPU=1 pytest --import-mode=importlib tests/ops tests/kernels

bench-gpu:
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation -e .
	FASTPOP_BENCH_DEVICE=cuda pytest $(BENCH) --benchmark-json=bench/records/gpu.json bench

# Everything a GPU is asked for, in nine minutes (docs/gpu-day.md). Builds for that card, installs nothing.
gpu-day:
	$(PYTHON) bench/gpu_day.py

install: $(VENV)/.demo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python $(SOURCES)
	$(PIP) torch
	$(PIP) -e '.[report,arrow]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python $(SOURCES)
	$(PIP) torch
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.test bench/peers.txt
	$(PIP) -e '.[bench]'
	$(PIP) --no-deps -r bench/peers.txt
	touch $@

clean:
	rm -rf build $(VENV) *.egg-info fastpop/_C*.so

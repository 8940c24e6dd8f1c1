# Every target makes what it needs; PYTHON picks the interpreter for a new .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is installed: the tested versions (.github/oldest.txt: the oldest that pyproject.toml allows).
CONSTRAINTS ?= constraints.txt
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

# Modules are compiled once, whatever the caller's environment says: the suite starts some hundreds of processes, and
# each would spend a second on it.
export PYTHONDONTWRITEBYTECODE =

# FASTPOP_BENCH=small runs tiny shapes, to see that all of it works.
BENCH := --import-mode=importlib --override-ini=addopts= --override-ini=pythonpath=bench \
	-o python_files='bench_*.py' --benchmark-only --benchmark-quiet -v -rs

CPP := $(shell find csrc bench -name '*.cpp' -o -name '*.h' -o -name '*.inc' -o -name '*.cu' -o -name '*.cuh')
SOURCES := setup.py pyproject.toml constraints.txt $(shell find csrc -type f 2>/dev/null)

# The oldest triton that is allowed, beside a numpy that its interpreter has to be mended for, and without
# what a GPU's machine may lack: duckdb, polars, tyro, pyarrow, matplotlib.
TRITON36 := .venv-triton36
TRITON36_PYTEST := OMP_NUM_THREADS=1 $(TRITON36)/bin/python -P -m pytest --import-mode=importlib

# Trainers of others, in which docs/embedding.md puts the losses, and models that docs/audit-gallery.md asks. A package
# that is not there fails there.
OTHERS := .venv-others
OTHERS_PYTEST := FASTPOP_REQUIRE_OTHERS=1 OMP_NUM_THREADS=1 $(OTHERS)/bin/python -P -m pytest --import-mode=importlib \
	-o addopts="-ra --strict-markers"

# The sdist, and the wheel that is built from it alone, installed into an environment with nothing else in it.
WHEEL := .venv-wheel

# What the site is built with, beside which nothing of fastpop runs.
DOCS := .venv-docs

.PHONY: docs site-widths notebooks dist wheel demo test check format bench test-slow sanitize sanitize-address sanitize-thread coverage test-triton36 triton36-sampled triton36-others test-others \
	test-gpu bench-gpu install-gpu gpu-day install clean

demo: $(VENV)/.demo
	$(BIN)/fastpop demo --out demo

# A process a core, with one thread each: most tests are Python, and torch's threads spin while they wait.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/pytest --import-mode=importlib --numprocesses=auto --dist=loadfile \
		--no-loadscope-reorder

test-slow: $(VENV)/.test
	$(BIN)/pytest --import-mode=importlib -m slow

# csrc under the sanitizers, on every path of the processor; a build of its own for each.
sanitize: sanitize-address sanitize-thread

sanitize-address sanitize-thread: sanitize-%: $(VENV)/.test
	$(BIN)/python tests/sanitize.py $*

# docs/coverage.md; TESTS="tests/ops tests/kernels" runs those alone, and the page says so.
coverage: $(VENV)/.test
	$(BIN)/python tests/coverage_page.py $(TESTS)

# build/site; every link and every anchor leads somewhere, or this fails.
docs: $(DOCS)/.docs
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict

# The same pages in a browser, where there is one: none is wider than its window.
site-widths: docs
	$(PYTHON) tests/site_widths.py build/site

# docs/notebooks run anew, and kept with what they show.
notebooks: $(VENV)/.test
	$(BIN)/python -P docs/run_notebooks.py

dist: $(VENV)/.test
	rm -rf dist
	FASTPOP_CUDA=0 $(BIN)/python -P -m build --quiet --outdir dist .
	$(BIN)/python tests/archives.py dist
	$(BIN)/twine check --strict dist/*

wheel: dist
	$(BIN)/python -m venv --clear $(WHEEL)
	$(WHEEL)/bin/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) torch pytest hypothesis scipy
	$(WHEEL)/bin/pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) dist/*.whl
	$(WHEEL)/bin/python -P tests/installed.py

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet --diff .
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/codespell
	$(BIN)/mypy fastpop
	$(BIN)/mypy kernels

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

bench: $(VENV)/.bench
	$(BIN)/pytest $(BENCH) --benchmark-json=bench/records/latest.json bench

# The interpreter takes minutes, of one core: halves side by side.
test-triton36: $(TRITON36)/.test
	+$(MAKE) --no-print-directory --jobs=2 --output-sync=target triton36-sampled triton36-others

# Without bfloat16, whose kernels make test interprets, but for float16: a third of the time for each.
triton36-sampled:
	TRITON_INTERPRET=1 $(TRITON36_PYTEST) -k "triton and not torch.bfloat16" -m "not slow and not gpu" \
		tests/ops/test_sampled_softmax.py

triton36-others:
	$(TRITON36_PYTEST) -k "not test_sampled_softmax.py" tests/ops/test_triton.py tests/kernels/test_triton_launch.py \
		tests/kernels/test_triton_compile.py tests/ops/test_row_update_on_device.py \
		tests/ops/test_sampled_softmax_on_device.py tests/training/test_on_device.py tests/test_house.py
	$(TRITON36_PYTEST) -k "host and emulation" tests/ops/test_sampled_softmax.py tests/ops/test_row_update.py

test-others: $(OTHERS)/.test
	$(OTHERS_PYTEST) tests/others

# On a machine with a GPU: what the interpreter at hand ($(PYTHON), its own torch and triton) says of it.
# -P: under plain python -m, the folder kernels/ would shadow the package. A test that fails does not keep
# the benches from running; make's own status is of both.
ifneq (,$(filter test-gpu bench-gpu,$(MAKECMDGOALS)))
MAKEFLAGS += --keep-going
endif

test-gpu: install-gpu
	FASTPOP_REQUIRE_GPU=1 $(PYTHON) -P -m pytest --import-mode=importlib -m gpu tests

bench-gpu: install-gpu
	FASTPOP_BENCH_DEVICE=cuda $(PYTHON) -P -m pytest $(BENCH) --benchmark-json=bench/records/gpu.json bench

install-gpu:
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation -e .

# Everything a GPU is asked for, in nine minutes (docs/gpu-day.md). Builds for that card, installs nothing.
gpu-day:
	$(PYTHON) bench/gpu_day.py

install: $(VENV)/.demo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python $(SOURCES)
	$(PIP) torch
	@echo "compiling fastpop: a minute or two, more where nvcc is (FASTPOP_CUDA=0 leaves CUDA out)"
	$(PIP) -e '.[report,arrow]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python $(SOURCES)
	$(PIP) torch
	@echo "compiling fastpop: a minute or two, more where nvcc is (FASTPOP_CUDA=0 leaves CUDA out)"
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/.demo

# Of the other environment's interpreter, whose compiled module is then found from here too.
$(TRITON36)/.test: $(VENV)/.test
	$(BIN)/python -m venv --clear $(TRITON36)
	$(TRITON36)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy numba \
		safetensors tqdm scipy pytest pytest-benchmark hypothesis
	$(TRITON36)/bin/pip install --quiet --disable-pip-version-check --no-deps triton==3.6.0
	cp -r $(VENV)/lib/python3*/site-packages/__editable__*fastpop* \
		$(VENV)/lib/python3*/site-packages/fastpop-*.dist-info $(TRITON36)/lib/python3*/site-packages/
	touch $@

# fastpop itself as in the environment before it.
$(OTHERS)/.test: $(VENV)/.test requirements/others.txt requirements/others-no-deps.txt
	$(BIN)/python -m venv --clear $(OTHERS)
	$(OTHERS)/bin/pip install --quiet --disable-pip-version-check -r requirements/others.txt
	$(OTHERS)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements/others-no-deps.txt
	cp -r $(VENV)/lib/python3*/site-packages/__editable__*fastpop* \
		$(VENV)/lib/python3*/site-packages/fastpop-*.dist-info $(OTHERS)/lib/python3*/site-packages/
	touch $@

$(DOCS)/.docs: requirements/docs.txt
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	touch $@

$(VENV)/.bench: $(VENV)/.test bench/peers.txt
	$(PIP) -e '.[bench]'
	$(PIP) --no-deps -r bench/peers.txt
	touch $@

clean:
	rm -rf build $(VENV) $(TRITON36) $(OTHERS) $(DOCS) $(WHEEL) dist *.egg-info fastpop/_C*.so

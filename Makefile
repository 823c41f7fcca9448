# `make demo` and `make test` work in a fresh clone: what they need goes into $(VENV), once.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
ARGS    ?=
N       ?= 2000

BIN := $(VENV)/bin
# The pins are of one set that installs together on Python 3.11 and later; 3.10 takes what it finds.
PINS := $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" * (sys.version_info >= (3, 11)))')
# One thread per process: the workers of the test suite already use the cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST = $(ONE_THREAD) $(BIN)/pytest -n $(WORKERS) --dist worksteal --durations=20
# Tests that read no dataframe and start no process are those of numbers.
NUMERICAL = $(shell grep -L -e 'seqlatent[. a-z]*forecasting' -e 'seqlatent[. a-z]*datasets' -e subprocess tests/test_*.py)

# Tests of what frames are read as and given back as.
FRAMES = $(wildcard tests/test_frames.py tests/test_arguments.py tests/test_bad_input.py \
	tests/test_doors.py tests/test_time_index.py tests/test_calendars.py tests/test_panel.py \
	tests/test_fuzz_doors.py tests/test_fuzz_frames.py tests/test_metrics.py tests/test_cli.py \
	tests/test_cli_dialects.py)

.DEFAULT_GOAL := test
.PHONY: demo test test-all test-checked test-slow test-kernels test-pandas2 fuzz lint docs clean
.NOTPARALLEL:
.SECONDARY:

demo: $(VENV)/.installed-core
	$(BIN)/seqlatent demo $(ARGS)

# What takes long is marked `slow` and left to test-all.
test: $(VENV)/.installed-test
	$(PYTEST) -m 'not slow' $(ARGS)

# All tests, with the shapes and types of every call checked, then those of numbers as other processors compute them.
test-all: test-checked test-slow test-kernels test-pandas2

test-checked: $(VENV)/.installed-test
	$(PYTEST) --jaxtyping-packages=seqlatent,beartype.beartype -m 'not slow' $(ARGS)

test-slow: $(VENV)/.installed-test
	$(PYTEST) -m slow $(ARGS)

# Kernels without vector instructions, then those of AVX2: what only one kind of rounding passes is no test.
test-kernels: $(VENV)/.installed-test
	ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE $(PYTEST) -m 'not slow' $(NUMERICAL) $(ARGS)
	ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=COMPATIBLE $(PYTEST) -m 'not slow' $(NUMERICAL) $(ARGS)

# Tests of frames under the oldest pandas that is supported; the rest of the environment is the same.
test-pandas2: $(VENV)/.installed-test build/pandas2/.installed
	PYTHONPATH=build/pandas2 $(PYTEST) -m 'not slow' $(FRAMES) $(ARGS)

# Random systems, as many as one likes: make fuzz N=5000.
fuzz: $(VENV)/.installed-test
	SEQLATENT_FUZZ=$(N) $(PYTEST) tests/test_fuzz_*.py $(ARGS)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site dist build .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch by itself and first: nothing else may decide which torch is installed.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq $(PINS) torch
	touch $@

$(VENV)/.installed-core: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install -qq $(PINS) --editable .
	touch $@

build/pandas2/.installed: $(VENV)/.installed-test
	rm -rf $(@D)
	$(BIN)/python -m pip install -qq --no-deps --target $(@D) 'pandas==2.2.*' pytz
	touch $@

$(VENV)/.installed-%: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install -qq $(PINS) --editable '.[$*]'
	touch $@

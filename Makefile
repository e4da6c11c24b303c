# make run ARGS="--prior swiss_roll --n_z 2" trains; make test tests; make bench measures the speed.
# All set up .venv first.
PYTHON ?= python3
ARGS ?= --model supervised --prior gaussian_mixture --n_z 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-slow chaos lint bench setup

run: $(VENV)/installed
	$(BIN)/python main.py $(ARGS)

test: $(VENV)/installed
	$(BIN)/python -m pytest --junitxml=build/test-report.xml
	@echo "Test report: build/test-report.xml"

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow --junitxml=build/test-slow-report.xml
	@echo "Test report: build/test-slow-report.xml"

# Trainings killed at random moments, resumed, and compared with one left alone; CHAOS_ARGS="--runs 3" for fewer.
chaos: $(VENV)/installed
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# PyTorch is only an opponent: without it the benchmark says which rows are missing.
bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --requirement requirements-bench.txt || \
	  echo "requirements-bench.txt cannot be installed: the rows of PyTorch will be missing."
	$(BIN)/python -m benchmarks.train_step $(BENCH_ARGS)

setup: $(VENV)/installed

# pip is upgraded first: the pip of an older Python searches for minutes where a newer one resolves.
$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.10 to 3.13 is needed; choose one with: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

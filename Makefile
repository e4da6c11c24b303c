# `make help` lists what there is. All targets set up .venv first.
PYTHON ?= python3
ARGS ?= --model supervised --prior gaussian_mixture --n_z 2
VENV := .venv
BIN := $(VENV)/bin
# A file's tests share trained runs, so one worker takes them all; tests/conftest.py says which file comes first.
TEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help run test test-slow test-browser explore chaos chaos-workers paper compare flags lint bench setup

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 |\2/p' Makefile | column -t -s '|'

run: $(VENV)/installed ## train; make run ARGS="--prior swiss_roll --n_z 2 --PMLR True" passes other flags
	$(BIN)/python main.py $(ARGS)

test: $(VENV)/installed-dev ## the fast tests, in minutes
	$(TEST) --junitxml=build/test-report.xml
	@echo "Test report: build/test-report.xml"

test-slow: $(VENV)/installed-dev ## statistical checks and long trainings, with the coverage of all tests
	$(TEST) -m "not browser" --cov --cov-report=term:skip-covered --junitxml=build/test-slow-report.xml
	@echo "Test report: build/test-slow-report.xml"

# Chromium comes with the system (Debian: apt install chromium); without it, or Gradio, the tests say so and are skipped.
test-browser: $(VENV)/installed-dev ## the explorer's page in Chromium
	$(BIN)/python -m pip install --quiet --requirement requirements-browser.txt || \
	  echo "requirements-browser.txt cannot be installed: the tests will be skipped."
	$(BIN)/python -m pytest tests/test_explorer_browser.py -m browser --junitxml=build/test-browser-report.xml

explore: $(VENV)/installed ## a page in which a trained model is walked through; make explore RUN=runs/NAME
	$(BIN)/python -m pip install --quiet --requirement requirements-explore.txt
	$(BIN)/python main.py --explore --run_dir $(RUN) $(EXPLORE_ARGS)

chaos: $(VENV)/installed-dev ## trainings killed at random and resumed, against one left alone; CHAOS_ARGS="--runs 3"
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

chaos-workers: $(VENV)/installed-dev ## one of two workers killed at random, all resumed; CHAOS_ARGS="--workers 3"
	$(BIN)/python -m tests.chaos_workers $(CHAOS_ARGS)

paper: $(VENV)/installed ## run the experiments that lack seeds, write docs/results.md; PAPER_ARGS="--list"
	$(BIN)/python -m experiments.paper_table $(PAPER_ARGS)

compare: $(VENV)/installed ## one table and one picture of several runs; make compare RUNS="a b c"
	$(BIN)/python -m evaluation.compare $(RUNS)

flags: $(VENV)/installed ## write docs/flags.md
	$(BIN)/python -m training.help

lint: $(VENV)/installed-dev ## linter, layout, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# PyTorch is only an opponent: without it the benchmark says which rows are missing.
bench: $(VENV)/installed ## the speed, beside PyTorch's; BENCH_ARGS="--only step"
	$(BIN)/python -m pip install --quiet --requirement requirements-bench.txt || \
	  echo "requirements-bench.txt cannot be installed: the rows of PyTorch will be missing."
	$(BIN)/python -m benchmarks.train_step $(BENCH_ARGS)

setup: $(VENV)/installed ## .venv with what the program needs

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

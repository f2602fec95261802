# `make run` and `make test` need Python 3.11 or newer, make and a package registry; nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help setup run test settings screenshots proofs soak soak-quick lint bench large texts ladders clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 13

# One stamp a level: what is installed is not installed again until its lists change.
$(VENV)/all: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "moreish needs Python 3.11 or newer; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Setting up $(VENV) with all optional libraries (once; a few minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/dev: $(VENV)/all
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/dev  ## make .venv with everything that developing needs

run: $(VENV)/all  ## train on the built-in names, print the losses and twenty new names
	@$(BIN)/moreish train names --out runs/names --overwrite
	@echo; echo "Twenty new names, none of them in the training data:"; echo
	@$(BIN)/moreish sample runs/names -n 20 --new-only --unique

# Tests are compiled once, even where the environment says otherwise: it takes longer than many run.
# A test that takes five minutes hangs: it fails and shows where, and the others go on.
test: $(VENV)/dev  ## the tests (a few minutes on two cores)
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not soak" -n auto --maxprocesses 8 --dist loadfile --timeout 300 --timeout-method thread

settings: $(VENV)/all  ## docs/settings.md, from the code
	@$(BIN)/python docs/settings_reference.py

screenshots: $(VENV)/dev  ## pictures of every view of the page, in build/screenshots
	@MOREISH_SCREENSHOTS=$(CURDIR)/build/screenshots OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser/test_page.py -k layout_of_every_view
	@ls build/screenshots

proofs: $(VENV)/dev  ## write docs/reliability.md from the results of all tests (over an hour)
	@rm -f .proofs.jsonl
	@MOREISH_PROOFS=$(CURDIR)/.proofs.jsonl $(MAKE) --no-print-directory test soak
	@$(BIN)/python benchmarks/reliability.py .proofs.jsonl

soak: $(VENV)/dev  ## all long tests (an hour)
	@MOREISH_SOAK=1 $(BIN)/python -m pytest -m "soak or repeated"

soak-quick: $(VENV)/dev  ## those of the long tests that CI runs too (a few minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "soak and not long" -n auto --maxprocesses 8 --dist loadfile --timeout 600 --timeout-method thread

lint: $(VENV)/dev  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/dev  ## the figures of the README, both measured and written (under twenty minutes)
	@$(BIN)/python benchmarks/quality.py --short
	@$(BIN)/python benchmarks/race.py $(if $(NANOGPT),--nanogpt $(NANOGPT))
	@$(BIN)/python benchmarks/speed.py $(if $(NANOGPT),--nanogpt $(NANOGPT))
	@$(BIN)/python benchmarks/table.py

large: $(VENV)/dev  ## a gigabyte through GPT-2's tokenizer; a large text first, then Shakespeare (an hour)
	@$(BIN)/python benchmarks/prepare.py
	@$(BIN)/python benchmarks/pretrain.py
	@$(BIN)/python benchmarks/table.py

texts: $(VENV)/dev  ## the planner on texts that it was not tuned on (a quarter of an hour)
	@$(BIN)/python benchmarks/texts.py
	@$(BIN)/python benchmarks/table.py

ladders: $(VENV)/dev  ## every rung on the lectures' data, and ablations (two hours)
	@for data in names-lecture shakespeare; do \
	  $(BIN)/moreish ladder $$data --test --overwrite --json > benchmarks/results/ladder-$$data.json || exit 1; \
	done
	@$(BIN)/python benchmarks/quality.py
	@$(BIN)/python benchmarks/ideas.py
	@$(BIN)/python benchmarks/scale.py
	@$(BIN)/python benchmarks/lecture_numbers.py
	@$(BIN)/python benchmarks/table.py

clean:  ## remove the virtual environment and caches (not your runs)
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis

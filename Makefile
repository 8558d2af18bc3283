# Two targets do everything on a fresh machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE := recipes/review-sentiment.yaml
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo demo-new-data test check unit e2e test-install torture soak simulate bench bench-gpu bench-scenarios \
    clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Graftwork needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[audio,demo,dev,export,postgres,s3,vectors]'
	touch $@

install: $(VENV)/installed ## the environment, in .venv

demo: install ## fine-tune on real reviews, judge, register, promote; again: reuses everything
	$(BIN)/graftwork run $(RECIPE)

demo-new-data: install ## let the Amazon reviews land beside the movies, and run the same recipe
	mkdir -p landing/amazon
	cp examples/reviews/amazon.tsv landing/amazon/amazon.tsv
	$(BIN)/graftwork run $(RECIPE)

test: check e2e ## everything but what needs a package index

check: install ## format, lint, types, import contracts, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory unit

unit: install ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal -m 'not e2e and not install'

e2e: install ## the tests with the real checkpoint, real servers, and processes that are killed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m e2e

test-install: install ## a wheel in a fresh environment, a saved model in one of its own: needs a package index
	$(BIN)/pytest -q -m install

N := 200
L := 1000
torture: install ## kill N=200 trainings, and who looks after L=1000 landings, at random points; nothing may differ or be lost
	OMP_NUM_THREADS=1 PYTHONPATH=tests/support $(BIN)/python tests/support/torture.py --kills $(N)
	PYTHONPATH=tests/support $(BIN)/python tests/support/landing_torture.py --landings $(L)

soak: install ## 50 recipes on one server, fed for 10 minutes; nothing lost or twice, memory that does not grow
	PYTHONPATH=tests/support $(BIN)/python tests/support/soak.py

H := 2000x50
S := 10000x20
simulate: install ## S=10000x20 schedules of landings and H=2000x50 histories of the ledger, at random, with crashes
	LANDING_SCHEDULES=$(S) LEDGER_HISTORIES=$(H) $(BIN)/pytest -q -n 2 --dist worksteal \
	    tests/monitoring/test_landing_machine.py tests/promotion/test_ledger_machine.py

bench: install ## measure what is missing, each figure beside its peer's, into benchmarks/RESULTS.md: hours at first
	$(BIN)/python -m benchmarks

bench-gpu: install ## the same on a GPU: BERT-base's shape, bfloat16
	$(BIN)/python -m benchmarks --only gpu

# What is installed lies in the first environment; the second adds SetFit to it, which the first must not have.
$(VENV)-setfit/installed: $(VENV)/installed
	$(BIN)/python -m venv $(VENV)-setfit
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > $$($(VENV)-setfit/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/graftwork.pth
	$(VENV)-setfit/bin/pip install --quiet --no-deps setfit==1.2.0 evaluate==0.4.6
	touch $@

bench-scenarios: install $(VENV)-setfit/installed ## what the scenarios of docs/scenarios.md gain: hours at first
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scenarios few-shot adaptation multi-task adversarial pixels

clean: ## remove what demo runs left here
	rm -rf .graftwork landing

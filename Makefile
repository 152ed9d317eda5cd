# What can be made here, with nothing but make and Python 3.11 or later?
#
# Every target first makes .venv if it is missing or older than pyproject.toml. PYTHON=... chooses the Python.

VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made

SEEDS := 1..5000
DISK_SEEDS := 1..300

.PHONY: help demo run test test-slow test-all nightly lint bench reference clean

help:
	@echo 'make demo       sensors, workers and a broker that is killed half way: nothing confirmed is lost'
	@echo 'make run        tidegate serve, with the defaults'
	@echo 'make test       the tests, but for the slow ones'
	@echo 'make test-slow  the slow tests'
	@echo 'make test-all   both'
	@echo 'make nightly    thousands of simulated worlds; SEEDS=from..to and DISK_SEEDS=from..to choose which'
	@echo 'make lint       style, types, and who imports whom'
	@echo 'make bench      the benchmarks'
	@echo 'make reference  conf/tidegate.toml and docs/configuration.md, from the settings as they are in the code'

demo: $(MADE)
	$(BIN)/tidegate demo

run: $(MADE)
	$(BIN)/tidegate serve

test: $(MADE)
	$(BIN)/python -m pytest

test-slow: $(MADE)
	$(BIN)/python -m pytest -m slow

test-all: test test-slow

nightly: $(MADE)
	status=0; \
	$(BIN)/python -m tests.simulation $(SEEDS) || status=1; \
	$(BIN)/python -m tests.simulation $(DISK_SEEDS) --sqlite || status=1; \
	exit $$status

lint: $(MADE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(MADE)
	set -e; for bench in $$(grep -l __main__ bench/*.py); do echo "== $$bench"; $(BIN)/python $$bench; done

reference: $(MADE)
	$(BIN)/python -m gateway.cli.reference

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(MADE): pyproject.toml
	@python=; for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo 'make: no Python 3.11 or later was found. Install one, or name it: make PYTHON=/path/to/python3' >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "make: $$python can not make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	echo "setting up $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

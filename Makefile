# What can be made here, with nothing but make and Python 3.11 or later?
#
# Every target first makes .venv if it is missing or older than pyproject.toml. PYTHON=... chooses the Python.

VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made
COMPILED := build/compiled
COMPILED_BIN := $(COMPILED)/.venv/bin

PYTEST := -m pytest -n auto --dist worksteal -rs

SEEDS := 1..5000
DISK_SEEDS := 1..300

.PHONY: help demo run test test-slow test-all compiled test-compiled test-compiled-slow nightly lint bench reference conformance clean

help:
	@echo 'make demo       sensors, workers and a broker that is killed half way: nothing confirmed is lost'
	@echo 'make run        tidegate serve, with the defaults'
	@echo 'make test       the tests, but for the slow ones'
	@echo 'make test-slow  the slow tests'
	@echo 'make test-all   both'
	@echo 'make compiled   the same in machine code: $(COMPILED_BIN)/tidegate'
	@echo 'make test-compiled, make test-compiled-slow   the tests, with the hot path as machine code'
	@echo 'make nightly    thousands of simulated worlds; SEEDS=from..to and DISK_SEEDS=from..to choose which'
	@echo 'make lint       style, types, and who imports whom'
	@echo 'make bench      the benchmarks'
	@echo 'make reference  conf/tidegate.toml and docs/configuration.md, from the settings as they are in the code'
	@echo 'make conformance  docs/conformance.md: which line obeys, and which test proves, each statement of the standards of MQTT'

demo: $(MADE)
	$(BIN)/tidegate demo

run: $(MADE)
	$(BIN)/tidegate serve

test: $(MADE)
	$(BIN)/python $(PYTEST)

test-slow: $(MADE)
	$(BIN)/python $(PYTEST) -m slow

test-all: test test-slow

# A copy of the checkout, as it is now, with an environment of its own: beside the sources here machine code would hide all edits.
compiled: $(MADE)
	@rm -rf $(COMPILED) build/sdist
	@$(BIN)/python -m hatchling build --target sdist --directory build/sdist >/dev/null
	@mkdir -p $(COMPILED)
	@tar -xzf build/sdist/*.tar.gz --strip-components 1 -C $(COMPILED)
	@$(BIN)/python -m venv $(COMPILED)/.venv
	@echo 'compiling takes some minutes'
	@packages=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	    cd $(COMPILED) && \
	    echo "$$packages" > "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth" && \
	    TIDEGATE_COMPILE=1 .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(COMPILED_BIN)/tidegate --version | grep '(compiled; '

test-compiled: compiled
	cd $(COMPILED) && PATH="$$PATH:$(CURDIR)/$(BIN)" .venv/bin/python $(PYTEST)

test-compiled-slow: compiled
	cd $(COMPILED) && PATH="$$PATH:$(CURDIR)/$(BIN)" .venv/bin/python $(PYTEST) -m slow

nightly: $(MADE)
	status=0; \
	$(BIN)/python -m tests.simulation $(SEEDS) || status=1; \
	$(BIN)/python -m tests.simulation $(SEEDS) --served || status=1; \
	$(BIN)/python -m tests.simulation $(SEEDS) --amqp || status=1; \
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

conformance: $(MADE)
	$(BIN)/python -m tests.mqtt.conformance.page

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
	@TIDEGATE_COMPILE=0 $(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

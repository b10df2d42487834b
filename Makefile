# Everything happens in .venv and .tools, inside this folder. `make clean` removes both.
# Variables: PYTHON (default python3), ONCE=1 (the demo ends by itself), ARGS (more arguments for pytest).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Programs that scripts/get_debian.py fetched are found like installed ones.
export PATH := $(CURDIR)/.tools/bin:$(PATH)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(VENV)/.demo ## A broker, fleetd and virtual cameras on this machine; ONCE=1 ends by itself
	@$(BIN)/python scripts/get_debian.py mosquitto || echo "Going on with the broker inside fleetd."
	@$(BIN)/fleetd demo $(if $(ONCE),--once)

.PHONY: test
test: check tools ## Everything that has to pass: `make check`, then all tests (ARGS="-k word")
	@$(BIN)/python -m pytest -q -n 4 --dist worksteal $(ARGS)

.PHONY: faults
faults: $(VENV)/.dev tools ## Cut and kill at every write, on the camera and in fleetd (ARGS="--seconds 600 --seed 7")
	@$(BIN)/python -m tests.faults.power_cuts $(ARGS)
	@EVERY_FAULT=1 $(BIN)/python -m pytest -q tests/integration/test_cli_recover.py -k fails_anywhere
	@$(BIN)/python -m tests.faults.syscalls $(ARGS)
	@$(BIN)/python -m tests.faults.bit_flips
	@$(BIN)/python -m tests.faults.rollouts $(ARGS)

.PHONY: check
check: $(VENV)/.dev ## Style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: bench
bench: $(VENV)/.dev tools ## Measure: messages per second, models to many cameras, and what the agent costs a camera; minutes, never part of the tests
	@$(BIN)/python -m benchmarks.landing
	@$(BIN)/python -m benchmarks.storm
	@$(BIN)/python -m benchmarks.transfer
	@$(BIN)/python -m benchmarks.agent_cost
	@$(BIN)/python -m benchmarks.halting
	@$(BIN)/python -m benchmarks.broker_security

.PHONY: format
format: $(VENV)/.dev ## Put the sources into the one format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: migration
migration: $(VENV)/.dev ## Write the next migration (WHY="Cameras have a site")
	@$(BIN)/python scripts/new_migration.py "$(WHY)"
	@$(BIN)/ruff format --quiet migrations

.PHONY: setup
setup: $(VENV)/.dev tools ## All that development needs, without running anything

.PHONY: tools
tools: $(VENV)/.made ## Fetch MicroPython, mosquitto and PostgreSQL for the tests (Debian packages, no root)
	@$(BIN)/python scripts/get_debian.py micropython mosquitto postgresql strace

.PHONY: clean
clean: ## Remove what make has made; what fleetd has stored stays
	rm -rf $(VENV) .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { echo "fleetd needs Python 3.11 or newer; there is no $(PYTHON)." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "fleetd needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V)." >&2; \
		echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module. Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.made
	$(PIP) -e '.[demo]'
	@touch $@

# The development packages include those of the demo.
$(VENV)/.dev: pyproject.toml $(VENV)/.made
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.demo $@

# Two commands do everything on a machine that has Python 3.11+ and npm:
#   make run    sets up and starts Opencode through a gateway (make demo: without keys or questions)
#   make test   sets up and runs every check
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .ogate-test
RIVALS := .ogate-bench

.PHONY: help run demo install setup test test-full lint fix types docs e2e fuzz bench bench-memory bench-start bench-ledger

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: $(VENV)/run.stamp ## Start Opencode through a gateway; a wizard asks for what is missing
	@$(BIN)/ogate

demo: $(VENV)/run.stamp ## The same with the scripted practice model: no key, no question, no cost
	@$(BIN)/ogate run --install --provider practice -- run "hello"
	@echo
	@echo "That was a scripted model. For real ones: make install, then ogate"

install: ## Install the ogate command for this user, with uv or pipx
	@if command -v uv >/dev/null; then uv tool install --force .; \
	elif command -v pipx >/dev/null; then pipx install --force .; \
	else $(MAKE) --no-print-directory $(BIN)/uv && $(BIN)/uv tool install --force --python $(PYTHON) .; fi

setup: $(VENV)/dev.stamp $(TOOLS)/ready.stamp ## Install everything the checks need

test: setup ## Run every check: lint, types, layers, documents, tests
	@TOOLS=$(TOOLS) BIN=$(BIN) scripts/check.sh

test-full: setup ## Replay every recorded answer, cut everywhere and ended in every way (slow)
	@TOOLS=$(TOOLS) BIN=$(BIN) scripts/check.sh -m full

lint: $(VENV)/dev.stamp ## Style and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

fix: $(VENV)/dev.stamp ## Mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/dev.stamp ## Types
	$(BIN)/mypy

docs: $(VENV)/dev.stamp ## Write the generated documents and completions anew
	BIN=$(BIN) scripts/generate.sh

e2e: setup ## Only the tests that drive the real Opencode
	@TOOLS=$(TOOLS) BIN=$(BIN) scripts/check.sh -m e2e

fuzz: $(VENV)/dev.stamp ## A million inputs at each edge where strangers' bytes come in (INPUTS=1000000)
	$(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),1000000)

bench: $(VENV)/dev.stamp ## Beside nginx and other gateways, in one run of a quarter of an hour (QUICK=1: two minutes)
	UV=$(BIN)/uv PYTHON=$(PYTHON) scripts/install_rivals.sh $(RIVALS) $(if $(QUICK),nginx ferrogw tensorzero portkey)
	$(BIN)/python -m bench $(if $(QUICK),--quick --out $(RIVALS)/quick.json,--out docs/performance.json)
	$(BIN)/python -m bench.report $(if $(QUICK),--show $(RIVALS)/quick.json)

bench-memory: $(VENV)/dev.stamp ## Whether the gateway's memory grows (SOAK=20 times 11,000 requests)
	$(BIN)/python -m bench.memory --soak $(or $(SOAK),5)

bench-start: setup ## What a start of Opencode and of small commands takes (ROUNDS=10 of the real one)
	$(BIN)/python -m bench.start --opencode $(TOOLS)/node_modules/.bin/opencode --rounds $(or $(ROUNDS),10) --out docs

bench-ledger: setup ## How a ledger of a million calls answers (EXCHANGES=10000000 for ten)
	$(BIN)/python -m bench.ledger_scale --exchanges $(or $(EXCHANGES),1000000)

$(VENV)/bin/uv:
	@# Debian keeps what makes environments in a package of its own.
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); scripts/install_packages.sh python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --upgrade pip uv

$(VENV)/run.stamp: $(VENV)/bin/uv pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --frozen --inexact --no-default-groups
	@touch $@

$(VENV)/dev.stamp: $(VENV)/bin/uv pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --frozen --inexact --group dev --group e2e
	@touch $@ $(VENV)/run.stamp

$(TOOLS)/ready.stamp: scripts/install_test_tools.sh
	scripts/install_test_tools.sh $(TOOLS)
	@touch $@

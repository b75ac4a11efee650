# make demo    a small town at work, in a few seconds; nothing is left behind
# make test    the whole test suite
# make test-fast  the unit tests, for the inner loop: half a minute
# make check   lint and test: what a change must pass
# make agents  the real programs (Claude Code, Codex, …) with a model of our own; AGENTS_TABLE=docs/agents.md writes there
# make hosts   three hosts as namespaces of this machine: links cut, power lost, clocks wrong; needs root
# make chaos   requests at random while processes are killed at random; SECONDS=600 SEED=7 REQUESTS=1000
# make bench   measure the claims about speed on this machine; AGENTS=60 (or 200, 1000) BENCH_ARGS="--only cycle storm"
# make growth  the same for 10, 100 and 1,000 agents, drawn into docs/performance.svg
# make docs    write docs/reference from the code
# make picture draw docs/picture.svg from the program at work
# make format · make lint · make venv · make tmux · make clean
#
# You need Python 3.11 or newer with venv. The rest is installed into $(VENV), and tmux into the system if you
# have the rights. To choose others, set PYTHON=..., VENV=... and PYTEST_ARGS=...

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n 4
SECONDS ?= 60
SEED ?= 1
AGENTS ?= 60
BENCH_ARGS ?=
BIN = $(VENV)/bin

.PHONY: demo test test-fast agents hosts chaos bench growth docs picture lint format check venv tmux clean
.NOTPARALLEL:

demo: $(VENV)/.ready-demo tmux
	@$(BIN)/gastown-mail demo

test: $(VENV)/.ready-test tmux
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(VENV)/.ready-test
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/unit

agents: $(VENV)/.ready-test tmux
	@AGENTS_TABLE=$(AGENTS_TABLE) $(BIN)/python -m tests.agents $(AGENTS_ARGS)

hosts: $(VENV)/.ready-test tmux
	HOSTS=1 $(BIN)/python -m pytest -n 3 tests/hosts

chaos: $(VENV)/.ready-test tmux
	@$(BIN)/python -m tests.faults.chaos --seconds $(SECONDS) --seed $(SEED) $(if $(REQUESTS),--requests $(REQUESTS))

bench: $(VENV)/.ready-demo tmux
	@$(BIN)/python -m benchmarks --agents $(AGENTS) $(BENCH_ARGS)

growth: $(VENV)/.ready-bench tmux
	@$(BIN)/python -m benchmarks.growth

docs: $(VENV)/.ready-test
	@$(BIN)/python -m tools.reference

picture: $(VENV)/.ready-test tmux
	@$(BIN)/python -m tools.picture

lint: $(VENV)/.ready-lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	@-$(BIN)/python -m tools.measure

format: $(VENV)/.ready-lint
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

check: lint test

venv: $(VENV)/.ready-lint

$(VENV)/.ready-test: EXTRAS = [test]
$(VENV)/.ready-lint: EXTRAS = [test,lint]
$(VENV)/.ready-bench: EXTRAS = [bench]
$(VENV)/.ready-build: EXTRAS = [build]

$(VENV)/.ready-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing gastown-mail$(EXTRAS) into $(VENV); the first time this takes a minute"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".$(EXTRAS)"
	@touch $@

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON) here: install Python 3.11 or newer, or run make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "$(PYTHON) has no venv: install it (apt-get install python3-venv), or choose another PYTHON" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

tmux:
	@command -v tmux >/dev/null || { \
	  echo "tmux is missing; trying to install it"; \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then apt-get update -qq; apt-get install -qq -y tmux; \
	  elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then \
	    sudo -n apt-get update -qq; sudo -n apt-get install -qq -y tmux; \
	  elif command -v brew >/dev/null; then brew install tmux; fi; }
	@command -v tmux >/dev/null || { \
	  echo "tmux 3.2 or newer is needed and could not be installed from here; install it with your" >&2; \
	  echo "system's packages (apt-get, dnf, apk, pacman, brew: the package is called tmux), then try again" >&2; exit 5; }

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

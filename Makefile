# AK-Bypass: `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
CAPTURE ?=
DEMO_OPTIONS ?=
PYTEST_OPTIONS ?=
SEED ?= 1
RUNS ?= 1
CHAOS_OPTIONS ?=
READY := $(VENV)/.ready

.PHONY: help demo test fmt lint type integration chaos docs package bench ci lock clean prerequisites test-prerequisites
.DEFAULT_GOAL := help

help:                    ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/ -/'

demo: prerequisites $(READY)   ## a simulated trading day from wire to SQL; CAPTURE=file for a capture of yours
	$(BIN)/akbypass demo $(DEMO_OPTIONS) $(CAPTURE)

test: test-prerequisites $(READY)   ## all tests, with a real broker and a real store
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

integration: test-prerequisites $(READY)   ## only the tests that need broker and store
	$(BIN)/python -m pytest -m services $(PYTEST_OPTIONS)

chaos: prerequisites $(READY)   ## kill and disturb a pipeline at seeded points, compare what it stored; SEED=… RUNS=…
	$(BIN)/python -m tests.chaos --seed $(SEED) --runs $(RUNS) $(CHAOS_OPTIONS)

fmt: $(READY)            ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY)           ## check format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: $(READY)           ## check types
	$(BIN)/mypy

docs: $(READY)           ## write the generated reference pages anew
	$(BIN)/python -m akbypass.schemas.reference > docs/reference/topics.md
	$(BIN)/python -m akbypass.config_reference > docs/reference/configuration.md
	$(BIN)/python -m akbypass.telemetry.reference > docs/reference/telemetry.md

package: $(READY)        ## build sdist and wheel into dist/
	$(BIN)/python -m hatchling build

bench: prerequisites $(READY)   ## measure this machine; writes docs/reference/performance.md
	$(BIN)/akbypass bench all --write docs/reference/performance.md

ci: lint type test       ## what CI runs

prerequisites:
	@sh .ci/prerequisites java maven

test-prerequisites:
	@sh .ci/prerequisites java maven tshark

$(READY): requirements.lock pyproject.toml .ci/install
	@sh .ci/install $(VENV)
	@touch $@

lock:                    ## resolve requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --extra local --extra deep --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header -o requirements.lock

clean:                   ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

.DEFAULT_GOAL := help
.PHONY: help install run test browser check bench docs openapi screenshots migrate revision pins clean

PYTHON ?= python3
BIN := .venv/bin
SOURCES := src tests bench migrations

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/installed ## Make .venv with the pinned dependencies and the project

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --only-binary :all: -r requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

.venv/developed: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --only-binary :all: -r requirements-dev.txt
	touch $@

run: install ## Start everything on 127.0.0.1:8080
	@exec $(BIN)/scheduler serve

test: .venv/developed browser ## Run all tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not alone"; beside=$$?; \
	$(BIN)/python -m pytest -m "alone" && exit $$beside

browser: # Debian's Chromium, where root may install it; elsewhere the tests that need one are skipped
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v $$name >/dev/null && exit 0; \
	done; \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null || exit 0; \
	apt-get update -q && apt-get install -qy --no-install-recommends chromium fonts-dejavu-core \
	  || test "$$BROWSER" != required

check: .venv/developed ## Lint, format, types, import contracts
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: .venv/developed ## Measure, and write docs/benchmarks.md
	$(BIN)/python -m bench

docs: openapi ## Write docs/configuration.md, and all that openapi writes
	$(BIN)/python -m scheduler.configpage

openapi: install ## Write docs/openapi.json and docs/openapi.yml
	$(BIN)/python -m scheduler.app

screenshots: .venv/developed ## Take the pictures of docs/tour.md; needs a Chromium
	$(BIN)/python tests/screenshots.py

migrate: install ## Bring the database up to date
	$(BIN)/scheduler migrate up

revision: install ## Start a migration: make revision m="add a column"
	$(BIN)/alembic revision -m "$(m)"

pins: .venv/developed ## Resolve the dependencies anew
	$(BIN)/python -m pip install -q uv
	for extra in "" "--extra dev"; do \
	  $(BIN)/uv pip compile pyproject.toml $$extra --universal --python-version 3.11 --upgrade -q \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	    -o requirements$$(test -n "$$extra" && echo -dev).txt || exit 1; \
	done

clean: ## Remove what was made here; data stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

# What is installed goes into .venv; models and compiled kernels into the user's cache folder.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help setup serve quick test test-clients compatibility reference lint format audit clean

help:  ## this list
	@sed -n 's/^\([a-z0-9.6B-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s "|"

setup: .venv/installed  ## the environment, and nothing else

serve: setup  ## set up, then serve on 127.0.0.1:8000
	.venv/bin/rerankd serve --host $(HOST) --port $(PORT)

QUICK = $(wildcard tests/test_*.py) tests/accounts tests/admission tests/apis tests/client
WITH_MODEL = tests/test_compare.py tests/test_examples.py tests/test_local.py tests/test_readme.py tests/test_selftest.py
CHANGED_ENGINE = $(shell git status --porcelain -- src/rerankd/engine tests/engine)

quick: .venv/installed-test lint  ## style, types, and the tests that take seconds; the engine's too if it has changed
	.venv/bin/python -m pytest -n 2 --dist loadscope -m "not slow and not server and not database" \
		$(filter-out $(WITH_MODEL),$(QUICK)) $(if $(CHANGED_ENGINE),tests/engine)

test: .venv/installed-test  ## set up, then run every test
	.venv/bin/python -m pytest -n 2 --dist loadscope

test-clients: .venv/installed-test  ## real clients against a running server, in environments of their own
	.venv/bin/python tests/third_party_clients/run.py

compatibility:  ## docs/compatibility.md's tables from the last test-clients
	$(PYTHON) tests/third_party_clients/compatibility.py

reference: .venv/installed  ## docs/reference/ from the code
	.venv/bin/python docs/reference/generate.py

random-0.6B: .venv/installed-test  ## a folder of random weights in the shapes of the 0.6B, with its tokenizer
	PYTHONPATH=tests .venv/bin/python -m support.random_checkpoint $@

lint: .venv/installed-test  ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/installed-test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

audit: .audit/installed  ## known vulnerabilities of the pinned versions; asks the public advisory database
	.audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

clean:
	rm -rf .venv .audit .clients build dist

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv (torch is large: the first time takes minutes) ..."
	$(PIP) --upgrade pip
	$(PIP) --editable '.[server,embedded]'
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP) --group test --group lint
	@touch $@

.audit/installed: Makefile
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@touch $@

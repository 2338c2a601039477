# What is installed goes into .venv; models and compiled kernels into the user's cache folder.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help setup serve quick test test-server test-web test-clients test-deploy test-arm test-ray wheel coverage
.PHONY: compatibility reference lint lint-scripts docs format audit clean amx-report gpu-report

help:  ## this list
	@sed -n 's/^\([A-Za-z0-9.-]*\):.*##  *\(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: .venv/installed  ## the environment, and nothing else

serve: setup  ## set up, then serve on 127.0.0.1:8000
	.venv/bin/rerankd serve --host $(HOST) --port $(PORT)

# One thread for each worker: more threads than cores would only wait for each other.
JOBS ?= 3
PARALLEL = OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

quick: .venv/installed-test lint  ## lint, types, and the fast tests of what changed
	$(PARALLEL) --quick $$(PYTHONPATH=tests .venv/bin/python -m support.quick)

test: .venv/installed-test  ## every test: in parallel, then one by one where a test measures the machine
	$(PARALLEL) -m "not alone"
	.venv/bin/python -m pytest -m alone

test-server: .venv/installed-test  ## the tests of the server
	$(PARALLEL) tests/server tests/published_samples

test-web: .venv/installed-test  ## the tests of the web pages
	.venv/bin/python -m pytest tests/web

test-arm: .venv/installed-test  ## the kernels for ARM under an emulator: needs g++-aarch64-linux-gnu and qemu-user
	.venv/bin/python -m pytest tests/engine/test_kernels_alone.py

wheel: .venv/installed-test  ## build a wheel, install it into a new environment, and try it there
	.venv/bin/python tests/wheel.py

coverage: .venv/installed-test  ## the lines that the tests run in their own process
	$(PARALLEL) --cov=rerankd --cov-report=term:skip-covered

test-clients: .venv/installed-test  ## real clients against a running server, in environments of their own
	.venv/bin/python tests/third_party_clients/run.py

test-ray: .ray/installed  ## replicas on a real Ray, on this machine
	OMP_NUM_THREADS=1 .ray/bin/python -m pytest tests/cluster

test-deploy: .deploy/installed  ## the chart, the images and the units in deploy/, by the checkers of their formats
	.deploy/bin/python -m pytest -c deploy/tests/pytest.ini --rootdir deploy/tests deploy/tests

compatibility:  ## docs/compatibility.md's tables from the last test-clients
	$(PYTHON) tests/third_party_clients/compatibility.py

docs: .docs/installed  ## the documentation site in site/
	NO_MKDOCS_2_WARNING=1 .docs/bin/mkdocs build --quiet

reference: .venv/installed  ## docs/reference/ from the code
	.venv/bin/python docs/reference/generate.py

random-0.6B: .venv/installed-test  ## a folder of random weights in the shapes of the 0.6B, with its tokenizer
	PYTHONPATH=tests .venv/bin/python -m support.random_checkpoint $@

amx-report: SHELL = /bin/bash
amx-report: .venv/installed-test  ## on a processor with AMX: are its tiles those of the tests, and how fast?
	set -o pipefail; (lscpu; .venv/bin/python -m pytest -rs tests/engine/test_amx_*.py \
	    && OMP_NUM_THREADS=1 PYTHONPATH=tests .venv/bin/python -m support.amx_rates \
	    && .venv/bin/rerankd bench --random-weights 0.6B --workload A B C 8x1500 1x8000 1x30 5x60 --dtype bfloat16 int8 \
	) 2>&1 | tee amx-report.txt

gpu-report: .venv/installed-test  ## on a machine with CUDA: are its logits those of the tests, and how fast?
	@.venv/bin/python -c "import sys, torch; torch.cuda.is_available() or sys.exit('make gpu-report needs a CUDA card.')"
	test -e random-0.6B || $(MAKE) --no-print-directory random-0.6B
	.venv/bin/python benchmarks/gpu_report.py --model ./random-0.6B

lint: .venv/installed-test  ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/codespell src tests docs examples *.md
	.venv/bin/mypy
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-scripts; else echo "No npm: scripts unchecked."; fi

lint-scripts: node_modules/.package-lock.json  ## types and style of the pages' scripts
	node_modules/.bin/tsc --project .
	node_modules/.bin/biome lint --error-on-warnings --diagnostic-level=warn

format: .venv/installed-test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

audit: .audit/installed  ## known vulnerabilities of the pinned versions; asks the public advisory database
	.audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt
	.audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints-ray.txt

clean:
	rm -rf .venv .audit .clients .deploy .docs .ray site build dist .coverage node_modules

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv (torch is large: the first time takes minutes) ..."
	$(PIP) --upgrade pip
	$(PIP) --editable '.[server,embedded]'
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP) --group test --group lint
	@touch $@

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund --ignore-scripts
	@touch $@

.docs/installed: docs/constraints.txt
	$(PYTHON) -m venv .docs
	.docs/bin/python -m pip install --quiet --disable-pip-version-check --requirement docs/constraints.txt
	@touch $@

.deploy/installed: deploy/tests/requirements.txt deploy/tests/helm.py
	$(PYTHON) -m venv .deploy
	.deploy/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	.deploy/bin/python deploy/tests/helm.py .deploy/bin
	@touch $@

# Ray and what it needs, over the packages of .venv: torch is not installed twice.
.ray/installed: constraints-ray.txt .venv/installed-test
	$(PYTHON) -m venv .ray
	.venv/bin/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
	    >"$$(.ray/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/below.pth"
	.ray/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-ray.txt
	@touch $@

.audit/installed: Makefile
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@touch $@

# `make demo` and `make test` set up everything they need in .venv from PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= out/demo
# mypy and grimp (which panics in a folder called "new") find the package through a link of its name.
CHECKED := -p weft.workloads -p weft.dataflow -p weft.simulator -p weft.hdl -p weft.analysis -m weft -m weft.cli

.PHONY: demo test test-full mutants bench lint kernels compiler browser clean

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Weft needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv is missing; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@mkdir -p $(VENV)/src && ln -sfn '$(CURDIR)' $(VENV)/src/weft
	@touch $@

demo: $(READY)
	$(BIN)/weft compare resnet18@64 --batch 512 --schemes dense,bdwp --nm 2:8 -o $(OUT)
	$(BIN)/weft report $(OUT)
	@echo "Page: $(OUT)/report.html; picture: $(OUT)/comparison.png; data: $(OUT)/comparison.json, $(OUT)/bdwp/ops.csv"

test: $(READY)
	@$(MAKE) --no-print-directory -j 2 -O kernels lint compiler browser
	$(BIN)/pytest -m "not slow" -n 2

test-full: $(READY)
	@$(MAKE) --no-print-directory -j 2 -O kernels lint compiler browser
	WEFT_HYPOTHESIS=full $(BIN)/pytest -n 2

# A part of test-full: one changed line at a time, each found by the check that tests/test_mutants.toml names.
mutants: lint compiler
	$(BIN)/pytest tests/test_mutants.py -n 2

bench: $(READY)
	$(BIN)/pytest benchmarks/bench_*.py --benchmark-enable --benchmark-only -p no:xdist

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(VENV)/src $(BIN)/mypy $(CHECKED)
	PYTHONPATH=$(VENV)/src $(BIN)/lint-imports

# Once, while the other core checks the source: each worker of a first run would compile them for itself.
kernels: $(READY)
	$(BIN)/python -m weft.tests.kernels

# RTL co-simulation is compiled C++.
compiler:
	@command -v g++ >/dev/null || { echo "The RTL tests need g++; on Debian or Ubuntu: apt-get install g++"; exit 1; }

# The report is tested in a real browser: CI installs one, elsewhere those tests are skipped without it.
browser:
	@{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null && command -v chromedriver >/dev/null && exit 0; \
	if [ "$$CI" = true ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get install -y chromium chromium-driver >/dev/null 2>&1 || { apt-get update >/dev/null 2>&1 && apt-get install -y chromium chromium-driver >/dev/null; } && exit 0; \
	fi; \
	echo "The report's browser tests will be skipped; on Debian or Ubuntu: apt-get install -y chromium chromium-driver"

clean:
	rm -rf $(VENV) out

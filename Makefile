# `make demo` and `make test` set up everything they need in .venv from PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= out/demo
# mypy finds the package through a link of its name; the clone may be called anything.
CHECKED := -p weft.workloads -p weft.dataflow -p weft.simulator -p weft.hdl -p weft.analysis -m weft -m weft.cli

.PHONY: demo test test-full bench lint compiler clean

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
	@echo "Report: $(OUT)/comparison.json; pictures: $(OUT)/comparison.png, $(OUT)/bdwp/layers.png, $(OUT)/bdwp/roofline.png"

test: lint compiler
	$(BIN)/pytest -m "not slow" -n 2

test-full: lint compiler
	$(BIN)/pytest -n 2

bench: $(READY)
	$(BIN)/pytest benchmarks/bench_*.py --benchmark-enable --benchmark-only -p no:xdist

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(VENV)/src $(BIN)/mypy $(CHECKED)
	$(BIN)/lint-imports

# RTL co-simulation is compiled C++.
compiler:
	@command -v g++ >/dev/null || { echo "The RTL tests need g++; on Debian or Ubuntu: apt-get install g++"; exit 1; }

clean:
	rm -rf $(VENV) out

# Two commands do everything on a fresh machine with Python 3.10+:
#   make demo   set up, then train, evaluate and draw on built-in data (under 10 minutes on a CPU)
#   make test   set up, then lint, types and the whole suite

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types suite cfgs clean

$(VENV)/ready: pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("darknet_py wants Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# PyPI's opencv-python links against libGL, which a bare server lacks; the headless build of it does not.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  $(BIN)/python -m pip uninstall --quiet --yes opencv-python && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt opencv-python-headless; }
	@touch $@

demo: $(VENV)/ready
	$(BIN)/python tools/demo.py

test: lint types suite

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

suite: $(VENV)/ready
	$(BIN)/python -m pytest

cfgs: $(VENV)/ready
	$(BIN)/python -m darknet_py.zoo --write cfg

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

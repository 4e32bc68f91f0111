# Two commands do everything on a fresh machine with Python 3.10+:
#   make demo   set up, then train, evaluate and draw on built-in data (8 to 15 minutes on two cores)
#   make test   set up, then lint, types, the whole suite, the wheel tried outside the repository, and the docs

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PARALLEL := -n 2 --dist worksteal
# Where CI runs, each file but torch's has to have the SHA-256 in requirements.lock; elsewhere, and with an older 3.11 than some of
# them take, pip chooses among the same versions.
LOCKED := $(shell $(PYTHON) -c 'import platform as p, sys; print("lock" * ((p.system(), p.machine()) == ("Linux", "x86_64") and (3, 11, 5) <= sys.version_info < (3, 12)))')

.PHONY: demo test lint types fast suite wheel docs cfgs lock supply-chain audit clean

$(VENV)/ready: pyproject.toml setup.py constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("darknet_py needs Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(if $(LOCKED),$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@# PyPI's opencv-python links against libGL, which a bare server lacks; the headless build of it does not.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || { \
	  $(BIN)/python -m pip uninstall --quiet --yes opencv-python && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt opencv-python-headless; }
	@touch $@

demo: $(VENV)/ready
	$(BIN)/python tools/demo.py

test: lint suite wheel docs

# All hooks on all files: ruff, ruff format, typos and mypy. The first two mend what they can.
lint: $(VENV)/ready
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pre-commit run --all-files --show-diff-on-failure

types: $(VENV)/ready
	$(BIN)/mypy

# Without the tests marked `slow`, as plain `pytest`, but by two processes.
fast: $(VENV)/ready
	$(BIN)/python -m pytest $(PARALLEL)

suite: $(VENV)/ready
	$(BIN)/python -m pytest $(PARALLEL) -m ''

wheel: $(VENV)/ready
	$(BIN)/python tools/try_wheel.py

# The site, into site/, without a network. NO_MKDOCS_2_WARNING: the theme's advertisement.
docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

cfgs: $(VENV)/ready
	$(BIN)/python -m darknet_py.zoo --write cfg

# The pins of what constraints.txt needs in turn, and requirements.lock; after a change of versions.
lock: $(VENV)/ready
	$(BIN)/python tools/lock.py

# Known vulnerabilities of all that `make` installs. It fails where pip-audit reaches no database or does not know a package.
audit:
	$(PYTHON) -m venv $(RELEASE)/audit
	$(RELEASE)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	grep '^torch==' constraints.txt > $(RELEASE)/torch.txt
	$(RELEASE)/audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements.lock -r $(RELEASE)/torch.txt

# What a user installs: the package alone, in an environment of its own, as a CycloneDX SBOM and a table of licenses.
RELEASE := dist/release
supply-chain: $(VENV)/ready
	rm -rf $(RELEASE)
	$(PYTHON) -m venv $(RELEASE)/package
	$(RELEASE)/package/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt .
	$(PYTHON) -m venv $(RELEASE)/tools
	$(RELEASE)/tools/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom pip-licenses
	$(RELEASE)/tools/bin/cyclonedx-py environment $(RELEASE)/package/bin/python --output-reproducible -o $(RELEASE)/sbom.json
	$(RELEASE)/tools/bin/pip-licenses --python $(RELEASE)/package/bin/python --format=markdown --output-file $(RELEASE)/licenses.md
	@echo "SBOM and licenses are in $(RELEASE)"

clean:
	rm -rf $(VENV) build site dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# make demo   a real network into a small file and back
# make test   the checks and all tests
# make check  format, lint, types, layers
#
# Each makes the environment it needs; nothing is installed outside .venv and .venv-demo.

PYTHON ?= python3
VENV ?= .venv
DEMO_VENV ?= .venv-demo
# Two cores: threads that spin while they wait would take the other's time.
export OMP_WAIT_POLICY ?= PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK = 1

INSTALLED = pyproject.toml setup.py constraints.txt $(wildcard csrc/*)

.PHONY: demo test check test-numpy test-no-compiler test-all clean

demo: $(DEMO_VENV)/ready
	$(DEMO_VENV)/bin/python demo/run.py

test: check test-numpy test-no-compiler test-all

check: $(VENV)/ready
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# The same bytes without the C library: the tests of coder, codecs and archive again.
test-numpy: $(VENV)/ready
	NETWEIGHT_KERNELS=numpy $(VENV)/bin/python -m pytest -q -m "core and not slow"

# An installation on a machine without a compiler.
test-no-compiler:
	PYTHON=$(PYTHON) bash tests/no_compiler.sh

test-all: $(VENV)/ready
	$(VENV)/bin/python -m pytest -q

$(VENV)/ready: $(INSTALLED)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e ".[test,check]"
	touch $@

$(DEMO_VENV)/ready: $(INSTALLED)
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install -q -c constraints.txt -e .
	touch $@

clean:
	rm -rf .venv .venv-demo build src/*.egg-info src/netweight/_kernels* .*_cache .hypothesis demo/cache demo/out

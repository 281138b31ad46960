# The two commands: `make demo` and `make test`. Each builds the environment on first use; later calls install nothing.
#   PYTHON  the Python (3.11 or newer) that the environment is made with
#   VENV    where the environment lies; one that exists already is added to, and its own detectron2 is kept
# No thread count is set here: torch takes all cores. Set OMP_NUM_THREADS to take fewer.

# The first Python of a version that the pinned requirements were tried with; setup_environment.py judges any other.
ifndef PYTHON
PYTHON := $(firstword $(shell for python in python3 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$python; \
	done) python3)
endif
VENV ?= .venv

# Changes with whatever decides what gets installed; `env-key` gives it to scripts that share environments.
KEY := $(shell cat requirements/*.in requirements/*.txt tools/install_detectron2.py tools/setup_environment.py | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.installed-$(KEY)

# The checkout in which make runs wins over any installed copy of mmovseg.
RUN := PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" "$(VENV)/bin/python"

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint zoo doctor env env-key clean

help:
	@echo "make demo       train and evaluate the small model under clouds; table, picture, summary in output/demo"
	@echo "make test       lint, types and the fast tests (CPU, no network)"
	@echo "make test-slow  the slow tests (CPU, no network)"
	@echo "make lint       ruff and mypy only"
	@echo "make zoo        make the shipped small weights again"
	@echo "make doctor     versions, devices, weights, and what is wrong"
	@echo "make env        build the environment only ($(VENV))"
	@echo "make clean      remove caches and build products (not $(VENV), not output/)"

$(STAMP):
	@$(PYTHON) tools/setup_environment.py --venv "$(VENV)" --stamp "$@"

env: $(STAMP)

env-key:
	@echo "$(KEY)-py$$($(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])')"

demo: $(STAMP)
	$(RUN) tools/run_demo.py

test: lint
	$(RUN) -m pytest -m "not slow and not gpu"

test-slow: $(STAMP)
	$(RUN) -m pytest -m "slow and not gpu"

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m mypy

zoo: $(STAMP)
	$(RUN) tools/make_zoo.py

doctor: $(STAMP)
	$(RUN) -m mmovseg.doctor

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find mmovseg projects configs tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

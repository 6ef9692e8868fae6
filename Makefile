# make demo and make test need Python 3.11 to 3.13, make and a package index; they make the environment themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: install demo test check bench lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     train and predict on sample data, and show where the forecast came from"
	@echo "make test     all tests"
	@echo "make check    lint, format, types, import rules, size budgets"
	@echo "make bench    time and memory, side by side with the bare work"
	@echo "make install  the environment in $(VENV)"

install: $(STAMP)

# PIP_CONSTRAINT pins what the build backend needs too.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...") if not (3, 11) <= sys.version_info < (3, 14) else 0'
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $(STAMP)

demo: install
	$(BIN)/python examples/story.py dengue_forecast demo

# Two processes, each with a Prefect server of its own: a file's tests stay together.
test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture

bench: install
	$(BIN)/python bench/run.py $(PARTS)

# The newest versions that fit pyproject.toml, on every supported Python. Needs uv.
lock:
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate --output-file constraints.txt --upgrade

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

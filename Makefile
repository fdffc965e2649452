# make demo   the main job, end to end, on a small made-up video set
# make test   lint, types and tests
# make bench  every benchmark, as one table of ratios

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench clean

demo: .venv/.installed
	$(BIN)/cavmae demo

test: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --cov

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv runs build dist *.egg-info

.venv/.installed: pyproject.toml constraints.txt bootstrap.sh
	PYTHON=$(PYTHON) ./bootstrap.sh .
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt bootstrap.sh
	PYTHON=$(PYTHON) ./bootstrap.sh '.[dev]'
	touch $@ .venv/.installed

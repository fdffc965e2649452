# make demo   the main job, end to end, on a small made-up video set
# make test   lint, types and tests
# make test-ecosystem  shard sets in the programs of others, which need an environment of their own
# make bench  every benchmark, as one table of ratios; OPTIONS=--quick: in 8 minutes
# make gpu    training on a GPU: right, fast, fed, learning

PYTHON ?= python3
BIN := .venv/bin
PYTEST := --numprocesses auto --dist worksteal
COVERAGE ?=

# What asks for an ffmpeg program: run a second time without the system's, where there is one.
FFMPEG_TESTS := tests/avprep/test_decode_*.py tests/avprep/test_demo_data.py \
	tests/avprep/test_extent.py tests/avprep/test_odd_files.py tests/avprep/test_real_media.py \
	tests/avprep/test_sample.py

.PHONY: demo install test lint suite test-ffmpeg test-ecosystem bench gpu clean

demo: .venv/.installed
	$(BIN)/cavmae demo

install: .venv/.installed-dev

test: lint suite test-ffmpeg

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry avprep cavmae
	$(BIN)/mypy

# COVERAGE=--cov counts the lines that the tests reach, which makes them a third slower.
suite: .venv/.installed-dev
	$(BIN)/python -m pytest $(PYTEST) $(COVERAGE)

test-ffmpeg: .venv/.installed-dev
	@if command -v ffmpeg >/dev/null; then \
		folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && \
		$(BIN)/python tests/path_without.py "$$folder" ffmpeg ffprobe && \
		PATH=$$folder $(BIN)/python -m pytest $(PYTEST) $(FFMPEG_TESTS); \
	else \
		echo "No ffmpeg on PATH: the tests ran with the wheel's; not run with a system's."; \
	fi

test-ecosystem: .venv/ecosystem/.installed
	.venv/ecosystem/bin/python -m pytest tests/ecosystem

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/run.py $(OPTIONS)

gpu: .venv/.installed-dev
	$(BIN)/python benchmarks/gpu.py --out runs/gpu

clean:
	rm -rf .venv runs build dist *.egg-info

.venv/.installed: pyproject.toml constraints.txt bootstrap.sh
	PYTHON=$(PYTHON) ./bootstrap.sh .
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt bootstrap.sh
	PYTHON=$(PYTHON) ./bootstrap.sh '.[dev]'
	touch $@ .venv/.installed

# It sees what .venv has, and what it installs itself comes first.
.venv/ecosystem/.installed: .venv/.installed-dev tests/ecosystem/requirements.txt
	$(BIN)/python -m venv --without-pip --clear .venv/ecosystem
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$(.venv/ecosystem/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	.venv/ecosystem/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar off \
		--requirement tests/ecosystem/requirements.txt
	touch $@

# Every target sets up .venv by itself, from nothing; a stamp file makes the second call quick. No compiler is needed.
PYTHON ?= python3
PIP = .venv/bin/python -m pip --disable-pip-version-check
ASK = .venv/bin/smolvlm ask
DEMO = src/smolvlm/assets/demo
KERNELS = hatch_build.py $(wildcard src/smolvlm/runtimes/kernels/*.c src/smolvlm/runtimes/kernels/*.h)

.PHONY: demo serve test lint types bench

demo: .venv/installed
	$(ASK) $(DEMO)/picture.png "Describe the picture."
	$(ASK) $(DEMO)/video.mp4 "What happens in the video?"

serve: .venv/installed-server
	.venv/bin/smolvlm serve

test: .venv/installed-dev
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2

lint: .venv/installed-dev
	.venv/bin/ruff check .

types: .venv/installed-dev
	.venv/bin/mypy

bench: .venv/installed-dev
	.venv/bin/python benchmarks/inference.py

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smolvlm needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt $(KERNELS) | .venv/bin/python
	$(PIP) install -q -c constraints.txt -e .
	touch $@

.venv/installed-server: pyproject.toml constraints.txt $(KERNELS) | .venv/bin/python
	$(PIP) install -q -c constraints.txt -e '.[server]'
	touch $@ .venv/installed

.venv/installed-dev: pyproject.toml constraints.txt $(KERNELS) | .venv/bin/python
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/installed

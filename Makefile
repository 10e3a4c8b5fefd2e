# `make demo` and `make test` are all a new machine needs: Python 3.11+, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO_DIR := protos/motherlode/v1
PROTOS := $(wildcard $(PROTO_DIR)/*.proto)

.PHONY: setup demo test check audit format protos bench clean
setup: $(VENV)/.complete  ## make the virtual environment

$(VENV)/.complete: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Motherlode needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[cpu,dev]'
	touch $@

demo: setup  ## the whole job on real data: train, publish, serve, query, score, retrain, hot-reload
	$(BIN)/python examples/demo.py

test: setup  ## all tests
	$(BIN)/python -m pytest

check: setup  ## lint, types, committed protobuf code up to date, Dockerfile, dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/python deploy/generate_protos.py --check
	$(BIN)/python deploy/audit.py --offline

audit: setup  ## known holes in what is installed; needs the network, and says so (exit 4) without
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[audit]'
	$(BIN)/python deploy/audit.py

format: setup  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: setup  ## regenerate the committed protobuf code
	$(BIN)/python deploy/generate_protos.py

bench: setup  ## every benchmark; writes its tables to stdout
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

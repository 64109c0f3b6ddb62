PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint

.venv/.done: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[envoy,dev]'
	touch $@

run: .venv/.done
	$(BIN)/picker up

lint: .venv/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest tests

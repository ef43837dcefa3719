# Two commands: `make demo` runs the main job on the embedded model, `make test` passes the tests.
# Both install into .venv first; everything an install needs is written here.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint types unit install format pylm clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/saelab demo --out runs/demo

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/pyright

unit: $(STAMP)
	$(BIN)/pytest

test: lint types unit

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The embedded language model, from scratch: about an hour on two cores, resumable, writes runs/pylm/pylm.
pylm: $(STAMP)
	$(BIN)/python -m saelab.lm.pylm.train --out runs/pylm

clean:
	rm -rf .venv build src/*.egg-info

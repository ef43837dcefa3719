# Two commands: `make demo` runs the main job on the embedded model, `make test` passes the tests.
# Both install into .venv first; everything an install needs is written here.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := -m pip --disable-pip-version-check --quiet install

CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: demo picture test lint types unit install format settings lock newest oldest pylm clean

# $(call install,PYTHON OF A NEW VENV,CONSTRAINTS): setuptools first, so that it is pinned too and not fetched for the build.
define install
	$(1) $(PIP) --constraint $(2) setuptools torch
	$(1) $(PIP) --constraint $(2) --no-build-isolation --editable '.[dev]'
endef

$(STAMP): pyproject.toml constraints.txt constraints-torch.txt
	$(PYTHON) -m venv $(VENV)
	$(call install,$(BIN)/python,constraints.txt)
	touch $(STAMP)

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/saelab demo --out runs/demo

# The picture of the docs anew: what a screen shows of the demo's report, in as many colours as it needs.
RESULTS ?= $(CURDIR)/runs/demo
PICTURE ?= $(CURDIR)/docs/report.png
picture:
	@test -x "$(CHROMIUM)" || { echo "no chromium $(if $(CHROMIUM),at $(CHROMIUM),in PATH): install it, or give make picture CHROMIUM=/path/to/chromium"; exit 1; }
	@test -f "$(RESULTS)/summary.json" || { echo "$(RESULTS) has no results: give make demo first"; exit 1; }
	$(BIN)/python -m saelab report "$(RESULTS)"
	"$(CHROMIUM)" --headless --no-sandbox --disable-gpu --log-level=3 --hide-scrollbars --blink-settings=preferredColorScheme=1 \
	  --window-size=1280,1760 --screenshot="$(PICTURE)" "file://$(RESULTS)/report.html"
	$(BIN)/python -c 'import sys; from PIL import Image as I; f = sys.argv[1]; I.open(f).convert("RGB").quantize(256, method=I.Quantize.MAXCOVERAGE).save(f, optimize=True)' "$(PICTURE)"

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

# docs/settings.md anew, from the code.
settings: $(STAMP)
	$(BIN)/python docs/settings.py

# constraints.txt anew: what pip chooses today in an empty environment, torch aside.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	$(call install,.venv-lock/bin/python,constraints-torch.txt)
	sed '/^-c /q' constraints.txt > constraints.new
	.venv-lock/bin/python -m pip freeze --all --exclude-editable --exclude pip --exclude torch >> constraints.new
	mv constraints.new constraints.txt
	rm -rf .venv-lock

# The suite with the newest packages, torch aside, to see what is coming.
newest:
	rm -rf .venv-newest
	$(PYTHON) -m venv .venv-newest
	$(call install,.venv-newest/bin/python,constraints-torch.txt)
	.venv-newest/bin/python -m pytest

# The suite with the oldest packages that pyproject.toml allows.
oldest:
	rm -rf .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	(echo '-c ../constraints-torch.txt'; sed -n 's/^    "\([a-z-]*\)>=\([0-9.]*\)",/\1==\2/p' pyproject.toml) > .venv-oldest/constraints.txt
	$(call install,.venv-oldest/bin/python,.venv-oldest/constraints.txt)
	.venv-oldest/bin/python -m pytest

# The embedded language model, from scratch: about an hour on two cores, resumable, writes runs/pylm/pylm.
pylm: $(STAMP)
	GOMP_SPINCOUNT=30000 $(BIN)/python -m saelab.lm.pylm.train --out runs/pylm

clean:
	rm -rf .venv .venv-lock .venv-newest .venv-oldest build src/*.egg-info

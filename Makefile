# make demo    install, embed examples/sentences.txt, show which uses of "cell" are alike
# make test    install the built wheel, then lint, type check and run the tests against it
# make docs    build the documentation site, with warnings as errors
# make test-all  the sessions of noxfile.py: other Pythons and versions of torch, each extra alone
# make help    the other targets
#
# PYTHON names the interpreter (3.10 or newer), VENV the environment that is made from it, PYTEST_ARGS adds to pytest's
# arguments, OUT is where train-bundled trains (started again, it continues).

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
OUT ?= runs/bundled-en
NOX_ARGS ?=

BIN = $(VENV)/bin
# Folders too: they change when a file is taken away.
SOURCES := $(shell find src ! -name '*.pyc' ! -name '__pycache__' ! -name '*.so')

# A caller's PYTHONPATH could put another copy of the package before the installed one.
unexport PYTHONPATH

.PHONY: help demo gallery test lint format wheel docs test-all pages reproducible sbom train-bundled clean
.DELETE_ON_ERROR:

help:
	@echo "make demo           install, embed the example sentences, compare the uses of 'cell'"
	@echo "make test           install the built wheel with the test tools; lint, type check, run the tests"
	@echo "make gallery        draw the pictures of docs/gallery.md"
	@echo "make lint           ruff and mypy only"
	@echo "make format         let ruff mend style and layout"
	@echo "make docs           build the documentation site into build/site; warnings are errors"
	@echo "make pages          write anew the pages that are made from the code: commands, licences, pictures"
	@echo "make test-all       other Pythons, other versions of torch, each extra alone, as far as they are here"
	@echo "make reproducible   build wheel and sdist twice and compare them"
	@echo "make sbom           list what the base install consists of, in build/sbom.json"
	@echo "make wheel          build the wheel into dist/"
	@echo "make train-bundled  train the bundled English model anew (needs the corpora; hours)"
	@echo "make clean          remove the environment, builds and caches"

# ---- the environment; each stamp is older than what it was made from when it must be made again

$(VENV)/.made: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "elmokit needs Python 3.10 or newer, but '$(PYTHON)' is not that: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one:  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments (on Debian and Ubuntu: apt install python3-venv)."; \
	  exit 1; } >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt hatchling
	@touch $@

dist/.made: $(VENV)/.made $(SOURCES) tools/compile_kernels.py README.md LICENSE
	rm -f dist/*.whl
	$(BIN)/python -m hatchling build --target wheel --directory dist
	@touch $@

# The version stays the same while the code changes, so pip must first forget the earlier wheel.
define install
	$(BIN)/python -m pip uninstall --quiet --yes elmokit
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(ls dist/*.whl)$(1)"
	@touch $@
endef

$(VENV)/.installed: dist/.made
	$(call install,)

$(VENV)/.test: dist/.made
	$(call install,[test])

# The tests of pages need Chromium: one that is here, else playwright's, else the system's. Without it they are skipped.
$(VENV)/.browser: $(VENV)/.test
	@$(BIN)/python tests/browser.py || { \
	  echo "looking for a Chromium to install, for the tests of pages"; \
	  timeout 300 $(BIN)/python -m playwright install --only-shell --with-deps chromium || \
	  timeout 300 sh -c 'apt-get update -qq && apt-get install -y -qq chromium-headless-shell'; \
	  } >$(VENV)/browser.log 2>&1 || echo "no Chromium can be installed here (see $(VENV)/browser.log)"
	@touch $@

# TensorFlow asks for older versions of what others share, so it lies beside the rest, for the tests that want it
# (tests/test_keras.py). Where there is none for this system they are skipped.
$(VENV)/.tensorflow: $(VENV)/.test
	@rm -rf $(VENV)/tensorflow
	@grep -E '^(keras|numpy)==' constraints.txt >$(VENV)/tensorflow.txt
	@$(BIN)/python -m pip install --quiet --target $(VENV)/tensorflow --constraint $(VENV)/tensorflow.txt \
	  tensorflow-cpu==2.21.0 >$(VENV)/tensorflow.log 2>&1 || { rm -rf $(VENV)/tensorflow; \
	  echo "TensorFlow cannot be installed here (see $(VENV)/tensorflow.log)"; }
	@touch $@

$(VENV)/.nox: $(VENV)/.made
	$(BIN)/python -m pip install --quiet --constraint constraints.txt nox cyclonedx-bom
	@touch $@

$(VENV)/.docs: dist/.made
	$(call install,[docs])

# ---- the work

demo: $(VENV)/.installed
	@rm -rf build/demo && mkdir -p build/demo
	$(BIN)/elmo embed --all examples/sentences.txt build/demo/sentences.hdf5
	$(BIN)/python examples/cell.py examples/sentences.txt build/demo/sentences.hdf5

# One torch thread in each test process: threads that share a core slow each other down.
test: lint $(VENV)/.browser $(VENV)/.tensorflow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gallery: $(VENV)/.browser
	PATH="$(abspath $(BIN)):$$PATH" bash examples/gallery.sh

# Their tools ask for it.
define needs_3_11
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make $@ needs Python 3.11 or newer:  make clean && make PYTHON=python3.12 $@"; exit 1; } >&2
endef

docs: $(VENV)/.docs
	$(needs_3_11)
	$(BIN)/python tools/pages.py build/pages
	$(BIN)/zensical build --strict --clean
	@echo "the site is build/site/index.html"

pages: $(VENV)/.test
	$(needs_3_11)
	$(BIN)/python tools/commands.py > docs/commands.md
	$(BIN)/python tools/licences.py > docs/licences.md
	$(BIN)/python tools/figures.py

# One wheel for all sessions. Arguments for nox: make test-all NOX_ARGS="-s base-3.12"
test-all: dist/.made $(VENV)/.nox
	$(BIN)/nox --envdir build/nox $(NOX_ARGS)

sbom: dist/.made $(VENV)/.nox
	$(BIN)/nox --envdir build/nox -s sbom

reproducible: $(VENV)/.made
	$(BIN)/python tools/reproducible.py

wheel: dist/.made
	@ls -l dist/*.whl

train-bundled: $(VENV)/.installed
	PATH="$(abspath $(BIN)):$$PATH" bash benchmarks/runs/bundled-en.sh $(OUT)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

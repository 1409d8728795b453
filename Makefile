# Every target sets up what it needs in .venv, once; all it asks for is make and Python >= 3.11.
#   make test ARGS="-k descent -x"    passes ARGS on to the command of the target
#   .venv/bin/pip install -e '.[data,wandb]'   adds packages whose tests are skipped where they are missing
#   make test PYTHON=/path/to/python  picks the interpreter that .venv is made with

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
PYTHON ?= python3.13 python3.12 python3.11 python3
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow kills test-oldest fuzz mutants check docs release-check bench experiments format constraints clean FORCE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## Train a small model, then generate, denoise, detect and compose with it
	@$(BIN)/eqm demo $(ARGS)

test: $(READY) ## Run the tests but the slow ones
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

fuzz: $(READY) ## Call the command line at random with hostile options and files, 1,000 times
	@$(BIN)/python tools/fuzz.py $(ARGS)

test-slow: $(READY) ## Run the slow tests
	@$(BIN)/python -m pytest -m slow $(ARGS)

kills: $(READY) ## Kill training 200 times and more, resume it, and compare every bit with a run that was not disturbed
	@$(BIN)/python tests/train/kills.py $(ARGS)

# On Python 3.11, with the constraints of tools/oldest.py. Extras whose lowest versions exclude one another stay out, and with
# them tests/encoders. torch is that of constraints.txt: its lowest version has no build for the CPU on PyPI.
OLDEST := .venv-oldest
test-oldest: ## Run the tests with the lowest versions that pyproject.toml allows, on Python 3.11
	@rm -rf $(OLDEST)
	@python3.11 -m venv $(OLDEST)
	@python3.11 tools/oldest.py data demo ode tensorboard video > $(OLDEST)/oldest.txt
	@$(OLDEST)/bin/python -m pip install -qq --no-compile --no-deps "torch==$(TORCH)+cpu" 2>/dev/null || \
	$(OLDEST)/bin/python -m pip install -qq --no-compile --no-deps "torch==$(TORCH)"
	@$(OLDEST)/bin/python -m pip install -qq --no-compile --constraint $(OLDEST)/oldest.txt \
	  --editable '.[demo,ode,tensorboard,video]' hypothesis pyarrow pytest torchmetrics
	@echo "==> torch $(TORCH)," $$(tail -n +1 $(OLDEST)/oldest.txt)
	@$(OLDEST)/bin/python -m pytest -m "not slow" -o filterwarnings= --disable-warnings \
	  --ignore tests/encoders --ignore tests/test_docs.py $(ARGS)

mutants: $(READY) ## Change the code in small ways, and list the changes that no test notices; ARGS picks some
	@OMP_NUM_THREADS=1 $(BIN)/mutmut run $(ARGS)
	@$(BIN)/mutmut results

check: $(READY) ## Check style, types, who imports whom, and the examples in docstrings
	@echo "==> Style"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "Some files are not formatted: run make format" >&2; exit 1; }
	@echo "==> Types"
	@$(BIN)/mypy
	@echo "==> Who imports whom"
	@$(BIN)/lint-imports
	@echo "==> Examples in docstrings"
	@$(BIN)/python -m pytest --quiet --doctest-modules src/eqm

docs: $(READY) ## Build the documentation into site/; a broken link or a request to another host fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --clean
	@$(BIN)/python docs/tools/offline.py site
	@echo "==> site/index.html"

release-check: $(READY) ## Build the wheel and the sdist, install each in a fresh environment, and try it
	@tools/release_check.sh $(BIN)/python

bench: $(READY) ## Measure side by side; CHECKOUT=folder adds the official code, MODEL=folder a model of the digits
	@if [ -n "$(CHECKOUT)" ]; then $(BIN)/python benchmarks/official.py --checkout $(CHECKOUT) $(ARGS); \
	else echo "Skipped official.py: pass CHECKOUT=folder of github.com/raywang4/EqM" >&2; fi
	@$(BIN)/python benchmarks/peers.py $(ARGS)
	@$(BIN)/python benchmarks/memory.py $(if $(CHECKOUT),--checkout $(CHECKOUT)) $(ARGS)
	@$(BIN)/python benchmarks/energies.py $(ARGS)
	@$(BIN)/python benchmarks/overhead.py $(ARGS)
	@if [ -n "$(MODEL)" ]; then $(BIN)/python benchmarks/rules.py --model $(MODEL) $(ARGS) && \
	$(BIN)/python benchmarks/adaptive.py --model $(MODEL) $(ARGS); \
	else echo "Skipped rules.py and adaptive.py: pass MODEL=folder of a model of the digits" >&2; fi
	@if nvidia-smi >/dev/null 2>&1; then \
	$(BIN)/python benchmarks/gpu.py $(if $(CHECKOUT),--checkout $(CHECKOUT)) $(ARGS); fi

experiments: $(READY) ## Rerun the paper's tables and figures on the digits, and tell which claims hold
	@for file in experiments/*.py; do case $$file in \
	  */harness.py|*/verdict.py|*/summary.py) ;; \
	  *) $(BIN)/python $$file $(ARGS) || exit;; esac; done
	@$(BIN)/python experiments/summary.py

format: $(READY) ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

constraints: ## Resolve constraints.txt anew, around its torch version (on a machine without a GPU)
	@sed -i.old '/^[^#]/{/^torch==/!d;}' constraints.txt && rm constraints.txt.old
	@rm -rf $(VENV)
	@$(MAKE) --no-print-directory $(READY)
	@sed -i.old '/^[^#]/d' constraints.txt && rm constraints.txt.old
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/^\(torch==[^+]*\)+.*/\1/' >> constraints.txt
	@touch $(READY)

clean: ## Remove .venv, caches and build products; keep runs and data
	rm -rf $(VENV) $(OLDEST) build dist mutants site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The last step of the set-up writes READY, so an interrupted one starts afresh. READY holds the
# folder it was made for: a copied or moved checkout must not run the code of the original.
MADE_FOR := $(shell test -x $(BIN)/python && cat $(READY) 2>/dev/null)
ifneq ($(MADE_FOR),$(CURDIR))
$(READY): FORCE
endif

$(READY): pyproject.toml constraints.txt
	@if [ "$(MADE_FOR)" = "$(CURDIR)" ]; then rm $@; exit; fi; \
	for python in $(PYTHON); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  found=$$python; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || continue; \
	  echo "==> Making $(VENV) with $$("$$python" --version)"; \
	  rm -rf $(VENV); \
	  exec "$$python" -m venv $(VENV); \
	done; \
	if [ -n "$$found" ]; then \
	  echo "$$found has no venv module: install it (Debian and Ubuntu: apt install python3-venv)" >&2; \
	else \
	  echo "eqm needs Python >= 3.11; none of these is: $(PYTHON). Install it or run make PYTHON=/path/to/python" >&2; \
	fi; exit 1
	@# A Linux machine without an NVIDIA GPU gets the CPU build, which is gigabytes smaller: from an
	@# index that pip knows of already, else from PyTorch's own. --no-deps, as that index lacks the rest.
	@if [ "$$(uname)" = Darwin ] || nvidia-smi >/dev/null 2>&1; then \
	  echo "==> Installing torch $(TORCH)"; \
	  $(PIP) install --no-compile --no-deps "torch==$(TORCH)"; \
	else \
	  echo "==> Installing torch $(TORCH) for the CPU"; \
	  $(PIP) install --no-compile --no-deps "torch==$(TORCH)+cpu" 2>/dev/null || \
	  $(PIP) install --no-compile --no-deps "torch==$(TORCH)" --index-url https://download.pytorch.org/whl/cpu; \
	fi
	@echo "==> Installing eqm and its tools"
	@$(PIP) install --no-compile --constraint constraints.txt --editable '.[dev]'
	@echo "$(CURDIR)" > $@

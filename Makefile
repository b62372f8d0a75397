# Every target sets up what it needs: a virtual environment in .venv, installed again when pyproject.toml changes.

.DEFAULT_GOAL := help
.PHONY: help run check test test-torch bench clean

VENV := .venv
DEV := $(VENV)/.installed-dev
EXAMPLES := $(VENV)/.installed-examples
TORCH := $(VENV)/.installed-torch
ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(EXAMPLES) ## serve the example: a digit classifier on http://127.0.0.1:8000
	$(VENV)/bin/salver run examples.digits:app $(ARGS)

check: $(DEV) ## format, lint, types, import contracts and unit tests: before every commit
	@scripts/check $(ARGS)

test: $(DEV) $(if $(filter 1,$(SALVER_TEST_TORCH)),$(TORCH)) ## everything that CI runs
	@scripts/test $(ARGS)

test-torch: $(DEV) $(TORCH) ## the same with PyTorch, which some tests need
	@scripts/test $(ARGS)

bench: $(DEV) ## measure speed against bare uvicorn (needs wrk)
	@scripts/need-command wrk
	$(VENV)/bin/python -m bench $(ARGS)

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-%: pyproject.toml scripts/install
	@scripts/install $*

$(TORCH): | $(DEV)
	$(VENV)/bin/pip install --quiet torch==2.13.0
	@touch $@

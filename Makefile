# Every target sets up what it needs: a virtual environment in .venv, installed again when pyproject.toml changes.

.DEFAULT_GOAL := help
.PHONY: help run check test test-browser test-torch bench bench-peers clean

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

test-browser: $(DEV) ## the same application in headless Chromium, which is large
	@scripts/need-command chromium-headless-shell
	$(VENV)/bin/pytest tests/browser $(ARGS)

test-torch: $(DEV) $(TORCH) ## the same with PyTorch, which some tests need
	@scripts/test $(ARGS)

bench: $(DEV) ## measure speed against bare uvicorn, and against the systems of bench-peers (needs wrk)
	@scripts/need-command wrk
	$(VENV)/bin/python -m bench $(ARGS)

bench-peers: $(DEV) ## install what `make bench` compares with: Ray Serve, LitServe, BentoML, grpc.aio
	@scripts/bench-peers $(ARGS)

clean: ## remove .venv, .venv-peers, caches and build output
	rm -rf $(VENV) .venv-peers build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-%: pyproject.toml scripts/install
	@scripts/install $*

$(TORCH): | $(DEV)
	$(VENV)/bin/pip install --quiet torch==2.13.0
	@touch $@

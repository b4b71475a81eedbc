# Everything starts here: `make demo` to see it, `make test` to check it. Needs Python >= 3.11, pip and make.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test lint prove bench docs clean

BIN := .venv/bin
INSTALL := .ci/install $(BIN)/python
ARGS ?=

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.demo ## server, web chat and supervisor page, with a brain that needs no key (ARGS="--check" for no person)
	@$(BIN)/roomkit demo $(ARGS)

test: .venv/.created ## every gate and every test (what CI runs)
	@.ci/checks $(ARGS)

lint: .venv/.dev ## style, types and layers
	@echo "roomkit: ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo "roomkit: pyright"
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	@echo "roomkit: import-linter"
	@$(BIN)/python -m tests.gates.layers

prove: .venv/.dev ## every long proof at its full size: kill -9, power cuts, storms, simulation, ... (an hour or so)
	@$(BIN)/python -m proofs $(ARGS)

bench: .venv/.dev ## the benchmarks, against their targets (minutes)
	@$(BIN)/python -m benchmarks $(ARGS)

docs: .venv/.docs ## the documentation, into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "roomkit: open site/index.html"

clean: ## removes environments, caches and built files
	@rm -rf .venv .venv-* build dist site .pytest_cache .ruff_cache .import_linter_cache .hypothesis .artifacts
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created:
	@python=$$(.ci/find-python) || { echo "roomkit: needs Python 3.11 or newer with venv: install it (Debian: apt-get install python3 python3-venv) or set PYTHON=/path/to/python"; exit 1; }; \
	if [ ! -x $(BIN)/python ]; then echo "roomkit: creating .venv with $$python"; "$$python" -m venv .venv; fi
	@touch $@

# One stamp per set of dependencies: the second run installs nothing, a changed pyproject.toml installs again.
.venv/.demo: pyproject.toml | .venv/.created
	@echo "roomkit: installing what the demo needs (once)"
	@COMPILE=1 $(INSTALL) -e '.[server,cli,http,openai,anthropic]'
	@touch $@

.venv/.dev: pyproject.toml | .venv/.created
	@echo "roomkit: installing what development needs (once)"
	@$(INSTALL) -e '.[dev]'
	@touch $@ .venv/.demo

.venv/.docs: pyproject.toml | .venv/.created
	@echo "roomkit: installing what the documentation needs (once)"
	@$(INSTALL) -e '.[docs]'
	@touch $@

# Everything one does with a checkout. `make help` lists it.
PYTHON_VERSION ?= 3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONFIG ?= examples/demo/onstream.yaml
# A local folder of wheels, where there is one, also serves uv; elsewhere uv finds CPU torch by itself.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
TORCH := $(if $(UV_FIND_LINKS),,--torch-backend cpu)

PINNING := --quiet --upgrade --python-version $(PYTHON_VERSION) --python-platform x86_64-manylinux_2_28 \
	--override overrides.txt --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: help install demo up test check chart tools dashboards bench pins clean

help:  ## list these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## a virtual environment with everything, in .venv

$(STAMP): pyproject.toml overrides.txt
	@command -v uv >/dev/null || python3 -m pip install --quiet uv
	@uv venv --quiet --allow-existing --python $(PYTHON_VERSION) $(VENV)
	@echo "installing into $(VENV)"
	@uv pip install --quiet --python $(BIN)/python $(TORCH) --override overrides.txt -e '.[cpu,demo,dev]'
	@touch $@

.onstream/model: | $(STAMP)
	@$(BIN)/python examples/demo/model.py $@

demo: $(STAMP) .onstream/model  ## the whole loop with simulated users, to the first promotion (ARGS=--sabotage)
	@$(BIN)/python examples/demo $(ARGS)

up: $(STAMP) .onstream/model  ## the same system for your own client, until Ctrl-C (CONFIG=onstream.yaml, ARGS=--watch)
	@$(BIN)/onstream up --config $(CONFIG) $(ARGS)

tools: $(STAMP)  ## Prometheus and promtool into .onstream/tools, from Debian's packages, for `up ARGS=--watch` and tests
	@PYTHONPATH=helm $(BIN)/python -m chartwatch --fetch

dashboards: $(STAMP)  ## write the dashboards beside the chart anew, and check them and the alert rules
	@PYTHONPATH=helm $(BIN)/python -m chartwatch --write

test: $(STAMP) .onstream/model  ## every test, with real vLLM, broker and Ray (ARGS='-k gate')
	@$(BIN)/pytest -n 2 --no-loadscope-reorder $(ARGS)

check: $(STAMP) chart  ## ruff, mypy --strict, import contracts, and the chart
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

chart: $(STAMP)  ## the Helm chart, its alerts and dashboards: lint, render, validate, scan (ARGS=--write makes its generated files)
	@PYTHONPATH=helm $(BIN)/python -m chartcheck $(ARGS)

$(VENV)/.bench: $(STAMP)
	@echo "installing what benchmarks compare with"
	@uv pip install --quiet --python $(BIN)/python $(TORCH) --override overrides.txt -e '.[cpu,demo,dev,bench]'
	@touch $@

bench: $(VENV)/.bench .onstream/model  ## benchmarks, each with sides compared in one run (NAME=gate ARGS=--help)
	@for file in tests/bench/bench_$(or $(NAME),*).py; do $(BIN)/python $$file $(ARGS) || exit 1; done

pins: | $(STAMP)  ## write anew what images are built from, images/constraints-*.txt
	@env -u UV_FIND_LINKS uv pip compile $(PINNING) --extra gpu --extra stores pyproject.toml -o images/constraints-gpu.txt
	@uv pip compile $(PINNING) $(TORCH) --extra cpu --extra demo --extra stores pyproject.toml -o images/constraints-cpu.txt

clean:  ## remove the environment and everything a run left
	rm -rf $(VENV) .onstream build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

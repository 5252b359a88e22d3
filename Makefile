# Four commands, each of which sets up what it needs: make demo, test, lint, bench.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
TORCH := torch==2.13.0+cpu
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-degrees test-zoo test-memory test-ops test-mutations samples docs lint bench clean
.DEFAULT_GOAL := test

demo: .venv/.ready
	$(BIN)/autotp plan examples/llama.py --set size=8b --cluster dgx-h100 --mesh tp=8 -o demo.plan.json
	$(BIN)/autotp verify examples/llama.py --set size=tiny --devices 2 --backend gloo

test: .venv/.ready
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

# Models that do not divide on 2, 3 and 5 gloo ranks, and a rank that is slow: some ten minutes of two cores.
test-degrees: .venv/.ready
	$(BIN)/python -m pytest -q --timeout 600 tests/distributed/degrees_over_gloo.py tests/distributed/slow_rank.py

# Every model of the zoo on simulated ranks and over gloo, some ten minutes of two cores; docs/coverage/models.json.
test-zoo: .venv/.ready
	$(BIN)/python tests/zoo/zoo_coverage.py
	$(BIN)/python tests/coverage_page.py

# Counted memory of the zoo's models against real steps, some ten minutes of one core.
test-memory: .venv/.ready
	$(BIN)/python tests/zoo/zoo_memory.py

# Torch's own samples of every operator under every strategy; its table stands in docs/coverage.md.
test-ops: .venv/.ready
	$(BIN)/python tests/rules/sweep.py
	$(BIN)/python tests/coverage_page.py

# Rules broken on purpose, one at a time: the execution check must find every one.
test-mutations: .venv/.ready
	$(BIN)/python tests/mutate_rules.py

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Sample reports in reports/samples/ and pictures of them, some two minutes.
samples: .venv/.ready
	$(BIN)/python docs/make_samples.py

# The documentation as a site in site/; a dead link is an error.
docs: .venv/.ready
	$(BIN)/mkdocs build --strict

bench: .venv/.ready
	$(BIN)/python benchmarks/step_time.py

# The CPU build of torch is small and enough; where the configured index has no such build, PyTorch's own has.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or later is needed: make PYTHON=...')"
	@echo "setting up .venv (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) -c constraints.txt setuptools
	@$(PIP) --no-deps $(TORCH) 2>/dev/null || $(PIP) --no-deps $(TORCH) --index-url https://download.pytorch.org/whl/cpu
	@$(PIP) -c constraints.txt --no-build-isolation -e '.[dev,docs,transformers]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache demo.plan.json

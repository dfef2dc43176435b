# make demo, make test: each does its own set-up. See CONTRIBUTING.md.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
CSRC := $(shell find csrc -name '*.[ch]' 2>/dev/null)
BUILD_INPUTS := $(CSRC) setup.py src/uswap/_ffi_build.py
TEST_ENV := USWAP_FAILPOINTS=1 USWAP_WERROR=1
PIP := $(PY) -m pip --disable-pip-version-check -q

TEST_VARIANTS := test-asan test-tsan test-invariants
SANITIZED_TESTS := tests/integration/test_swap_cache.py tests/integration/test_shared_tables.py tests/stress/test_bytes.py

.PHONY: demo test lint format pytest doctest bench bench-fit bench-scale bench-churn bench-reclaim bench-policies bench-curve bench-shared bench-loader bench-verify bench-numpy bench-run bench-run-fits stress soak run-suites mutants fuzz build build-test wheel clean
.PHONY: model model-mutants $(TEST_VARIANTS) test-leaks test-sanitizers coverage

demo: build
	$(PY) -m uswap demo $(DEMO_ARGS)

test: lint pytest doctest

lint: $(VENV)/.dev
	$(VENV)/bin/clang-format --dry-run -Werror $(CSRC)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.dev
	$(VENV)/bin/clang-format -i $(CSRC)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

pytest: build-test $(VENV)/.dev
	$(PY) -m pytest $(PYTEST_ARGS)

# The examples of the docstrings, the README and the docs.
doctest: build-test $(VENV)/.dev
	$(PY) -m pytest -q --doctest-modules --ignore=src/uswap/_ffi_build.py src/uswap
	$(PY) -m pytest -q --doctest-glob='*.md' README.md docs

# The core built another way, in build/variants/, and the tests with it: see CONTRIBUTING.md.
$(TEST_VARIANTS): $(VENV)/.dev
	$(PY) tests/variants/run.py $(subst test-,,$@) --timeout=600 $(PYTEST_ARGS)

# Which lines of csrc/ the tests run: a table, and build/coverage/index.html. docs/coverage.md says what the others are.
coverage: $(VENV)/.dev
	$(PIP) install 'gcovr==8.8'
	mkdir -p build/coverage
	-$(PY) tests/variants/run.py coverage --timeout=600 $(PYTEST_ARGS)
	$(PY) -m gcovr --root . --filter csrc/ --html-details build/coverage/index.html --txt - build/core

# A part of the above, in two minutes: what CI runs.
test-sanitizers: $(VENV)/.dev
	USWAP_STRESS_SECONDS=2 $(PY) tests/variants/run.py asan -q $(SANITIZED_TESTS)
	USWAP_STRESS_SECONDS=2 $(PY) tests/variants/run.py tsan -q $(SANITIZED_TESTS)

test-leaks: $(VENV)/.dev
	$(PY) tests/variants/run.py leaks --timeout=600 tests/leaks $(PYTEST_ARGS)

# The model of the page protocol (docs/model.md); MODEL_ARGS=--all for the large configurations too.
model: $(VENV)/.base
	$(PY) model/check.py $(MODEL_ARGS)

model-mutants: $(VENV)/.base
	$(PY) model/check.py --mutants $(MODEL_ARGS)

bench: build
	$(PY) benchmarks/bench_patterns.py $(BENCH_ARGS)

bench-fit bench-scale bench-churn bench-reclaim bench-shared bench-loader bench-verify bench-numpy: build
	$(PY) benchmarks/$(subst -,_,$@).py $(BENCH_ARGS)

bench-policies bench-curve bench-run bench-run-fits: $(VENV)/.bench build
	$(PY) benchmarks/$(subst -,_,$@).py $(BENCH_ARGS)

# Checked loads and stores under eviction, as many as one likes: STRESS_ARGS='--operations 1e9 --seed 7'.
stress: build
	PYTHONPATH=tests $(PY) -m _support.word_stress $(STRESS_ARGS)

# Processes that are killed, on a disk that fails: tests/_support/soak.py.
soak: build-test
	PYTHONPATH=tests $(PY) -m _support.soak $(SOAK_ARGS)

# CPython's own tests and NumPy's under `uswap run`: tests/_support/run_suites.py.
run-suites: build $(VENV)/.dev
	PYTHONPATH=tests $(PY) -m _support.run_suites --json benchmarks/results/run_suites.json $(RUN_SUITES_ARGS)

# Programs at random against a model: docs/fuzzing.md.
fuzz: build-test
	$(PY) -m uswap fuzz $(FUZZ_ARGS)

# Bugs made by hand, and what finds them: docs/mutants.md.
mutants: build-test $(VENV)/.dev
	$(PY) mutants/run.py $(MUTANTS_ARGS) $(MUTANTS)

build: $(VENV)/.built-release
build-test: $(VENV)/.built-test

wheel: $(VENV)/.base
	$(PIP) wheel --no-build-isolation --no-deps -w dist .

clean:
	rm -rf $(VENV) build dist src/uswap.egg-info src/uswap/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis

# ---- stamps: each step runs once, and again when what it depends on has changed ------------------------------------

# The environment with what building and the demo need.
$(VENV)/.base: pyproject.toml .ci/prepare
	bash .ci/prepare $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'setuptools>=77' wheel 'cffi>=1.15.1' 'psutil>=5.9' 'numpy>=1.23'
	touch $@

# The package, editable: its Python files are used where they are. This builds the core as well, as asked by the environment.
$(VENV)/.installed: $(VENV)/.base pyproject.toml
	$(PIP) install --no-build-isolation --no-deps -e .
	rm -f $(VENV)/.built-release $(VENV)/.built-test
	touch $@

# What the benchmark of policies needs besides: pandas, scikit-learn, libcachesim.
$(VENV)/.bench: $(VENV)/.installed
	$(PIP) install --no-build-isolation -e '.[bench]'
	rm -f $(VENV)/.built-release $(VENV)/.built-test
	touch $@

# What the tests and the linters need, in the versions pyproject.toml pins.
$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install --no-build-isolation -e '.[test,lint]'
	rm -f $(VENV)/.built-release $(VENV)/.built-test
	touch $@

# One extension module in src/uswap/ at a time: the release build, or that of the tests. Objects of both are kept in build/.
$(VENV)/.built-release: $(BUILD_INPUTS) | $(VENV)/.installed
	$(PY) setup.py -q build_ext --inplace
	rm -f $(VENV)/.built-test
	touch $@

$(VENV)/.built-test: $(BUILD_INPUTS) | $(VENV)/.dev
	$(TEST_ENV) $(PY) setup.py -q build_ext --inplace
	rm -f $(VENV)/.built-release
	touch $@

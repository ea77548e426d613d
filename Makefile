# Every target sets up what it needs, on a machine with only Python 3.11+ and make.
#   make demo     workers are killed, the run finishes right
#   make test     all tests, with the SDK that aioboto3 pins; green or red
#   make test-newest, make test-lowest  the same with the newest SDK, and with the lowest bounds
#   make check    format, lint, spelling, strict types, layers
#   make docs     the site, in docs/_build/html/; make screenshots  its pictures of the page
#   make bench    the benchmark suite, this library and its peers (minutes)
#   make dist     wheel and sdist in dist/; the wheel is installed in an empty environment and tried
#   make package  the Lambda zip, in infra/build/
#   make constraints  the newest versions of what the zip holds, pinned with hashes

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Hundreds of processes import the package: they read its byte code, whatever the environment says of writing it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: bench demo dist docs screenshots test test-long test-newest test-lowest check format package constraints clean

demo: $(VENV)/demo.stamp
	@$(BIN)/s3-checkpoint demo $(ARGS)

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

test-long: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -m long $(ARGS)

check: $(VENV)/dev.stamp
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/codespell
	@$(BIN)/mypy
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright
	@$(BIN)/python -m tests.typing.completeness
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

docs: $(VENV)/docs.stamp
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html" >&2

screenshots: $(VENV)/dev.stamp
	@S3_CHECKPOINT_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/web/test_screenshots.py

bench: $(VENV)/bench.stamp
	@$(BIN)/python -m tests.benchmarks $(ARGS)

format: $(VENV)/dev.stamp
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# The wheel is tried with nothing but what it requires, from outside this folder.
dist: | $(BIN)/python
	@rm -rf dist $(VENV)-dist
	@$(PIP) install build
	@$(BIN)/python -m build --outdir dist . >/dev/null
	@$(BIN)/python -m venv $(VENV)-dist
	@$(VENV)-dist/bin/python -m pip --disable-pip-version-check install --quiet dist/*.whl
	@cd dist && ../$(VENV)-dist/bin/python -I ../tests/try_wheel.py *.whl

# For another runtime: make package ARGS='--python 3.12 --architecture arm64'; lighter: ARGS='--transport obstore'
package: | $(BIN)/python
	@$(BIN)/python infra/package_worker.py $(ARGS)

# Every wheel of every version pinned, for all Pythons and architectures; `make package` takes no other.
constraints: | $(BIN)/python
	@$(PIP) install uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra obstore --generate-hashes --upgrade --no-annotate \
		--custom-compile-command 'make constraints' --output-file infra/worker/constraints.txt \
		pyproject.toml infra/worker/requirements.txt

# Tests the newest SDK, without aioboto3, in an environment of its own.
test-newest: | $(BIN)/python
	@$(PIP) install uv
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-newest
	@$(BIN)/uv pip install --quiet --python $(VENV)-newest/bin/python -e '.[dev]' 'aiobotocore>=3'
	@$(VENV)-newest/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

# Tests the lower bounds of pyproject.toml, in an environment of its own.
test-lowest: $(VENV)/dev.stamp
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-lowest
	@$(BIN)/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct -e '.[dev]'
	@$(VENV)-lowest/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making a virtual environment in $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)

comma := ,

# $(call install,purpose,extra): says which packages are collected, then that they are installed; errors as pip words them.
define install
	@echo "setting up $(VENV) for $(1) (once)" >&2
	@{ $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off -e '.[$(2)]' 2>&1; echo "exit $$?"; } | \
	awk '/^Collecting / { sub(/[^A-Za-z0-9._-].*/, "", $$2); printf "%s%s", n++ ? " " : "  collecting ", $$2; fflush() } \
	/^Installing collected/ { printf "%s  installing %d packages ...\n", n ? "\n" : "", split($$0, names, ","); fflush() } \
	/^ *(ERROR|error|WARNING: .*(fail|Retry))/ { print "\n" $$0 } \
	/^exit / { code = $$2 } END { print code ? "  pip failed" : "  done"; exit code }' >&2
endef

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(call install,the demo,demo)
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	$(call install,development,aioboto3$(comma)dev)
	@touch $@ $(VENV)/demo.stamp

$(VENV)/docs.stamp: pyproject.toml | $(BIN)/python
	$(call install,the site,docs)
	@touch $@

$(VENV)/bench.stamp: pyproject.toml | $(BIN)/python
	$(call install,benchmarks,bench)
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(VENV)-dist .venv-other infra/build docs/_build dist .mypy_cache .pytest_cache .ruff_cache \
		.hypothesis

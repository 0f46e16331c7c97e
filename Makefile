# All that is needed is make and Python 3.11; everything else goes into .venv.
.PHONY: help setup demo test serve lint docs advisories bench prove lock
.DELETE_ON_ERROR:

PYTHON := .venv/bin/python
PIP_INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check

help:  ## Print this
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' Makefile | expand -t 16

setup: .venv/ready  ## Put what the lock names and this project into .venv

demo: setup  ## Tell the whole story over real HTTP, and end
	@$(PYTHON) -m examples.demo

serve: setup  ## Keep a server running at http://127.0.0.1:8000 with the demonstration data
	@$(PYTHON) -m examples.serve

test: setup  ## Run every test, on all cores; what is skipped is named
	@$(PYTHON) -m pytest -n auto --maxprocesses 8 --dist loadfile

prove: setup  ## Run the long proofs that `make test` leaves out
	@$(PYTHON) -m pytest -m prove tests

lint: setup  ## Check style, format, types and the direction of imports
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

docs: setup  ## Build the documentation's site into build/site
	@PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet
	@echo "$(PYTHON) -m http.server --directory build/site  shows it"

advisories: setup  ## Ask the package index for known advisories about what requirements.lock names
	$(PYTHON) -m venv build/advisories
	build/advisories/bin/pip install --quiet --disable-pip-version-check pip-audit
	build/advisories/bin/pip-audit --disable-pip --require-hashes --requirement requirements.lock

bench: setup  ## Measure speed and size
	@$(PYTHON) -m bench

lock: setup  ## Make requirements.lock and the container's part of it anew, with the newest versions that pyproject.toml allows
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check uv
	build/lock/bin/uv pip compile --quiet --upgrade --generate-hashes --only-binary :all: \
		--python-version 3.11 --python-platform linux --custom-compile-command "make lock" \
		--extra server --extra resource-server --extra agent --extra spiffe --extra traces --extra docs --extra test --group build \
		--output-file requirements.lock pyproject.toml
	build/lock/bin/uv pip compile --quiet --generate-hashes --only-binary :all: --constraint requirements.lock \
		--python-version 3.11 --python-platform linux --custom-compile-command "make lock" \
		--extra server --extra traces --output-file deploy/requirements.lock pyproject.toml

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { $(FIND_PYTHON) && "$$python" -m venv --clear .venv; }
	@echo "Setting up .venv, which takes a minute"
	@$(PIP_INSTALL) --require-hashes --no-deps -r requirements.lock
	@PYTHONWARNINGS=ignore $(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

# Sets the shell's `python`, or says what is missing.
define FIND_PYTHON
for python in python3.11 python3; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
done; \
[ -n "$$python" ] || { echo "Python 3.11 or later is needed. python3 here is: $$(python3 --version 2>&1)" >&2; exit 1; }
endef

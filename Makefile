# make install | make test | make docs | make demo | make clean. Each sets up .venv from nothing; only Python 3.11, 3.12 or 3.13 is needed.
# Another Python than the newest one: make clean, then make test PYTHON=python3.12
PYTHON = python3.13 python3.12 python3.11 python3
# Errors alone: what pip warns of is the machine's own.
PIP = .venv/bin/python -m pip install -qq
.PHONY: help install test docs demo clean

help:
	@echo "make install  set up .venv"
	@echo "make test     set up .venv, lint, check types, run the tests"
	@echo "make docs     set up .venv, build the documentation site in site/"
	@echo "make demo     set up .venv, train MAML and MAML+L2F on two small task families, write pictures"
	@echo "make clean    delete .venv, the site and what the demo wrote"

test: .venv/.dev docs
	bash scripts/check

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict
	@echo "to read it: open site/index.html in a browser"

install: .venv/.ready
	@echo "to have the command lethax in this terminal: source .venv/bin/activate"

demo: .venv/.ready
	.venv/bin/lethax demo
	@echo "to have the command lethax in this terminal: source .venv/bin/activate"

.venv/bin/python:
	@rm -rf .venv  # without its python, what lies there is of another one
	@for python in $(PYTHON); do \
	  if command -v $$python >/dev/null && $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "setting up .venv with $$python"; $$python -m venv .venv && exit 0; rm -rf .venv; fi; done; \
	echo "no Python 3.11 or newer with venv was found: install one, for example with apt-get install python3 python3-venv" >&2; exit 1

.venv/.ready: .venv/bin/python requirements.txt pyproject.toml
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -e .
	@touch $@

.venv/.dev: .venv/.ready requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

.venv/.docs: .venv/.ready requirements-docs.txt
	$(PIP) -r requirements-docs.txt
	@touch $@

clean:
	rm -rf .venv demo site

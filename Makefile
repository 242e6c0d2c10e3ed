# The entry points for developers. Each target installs what it needs in a folder outside the checkout.

.DEFAULT_GOAL := help
.PHONY: help install demo test newest conformance e2e bench fuzz lint
SHELL := bash

# The registry of the demo: an AWS that runs on this machine (ecr), or a folder (oci).
STORE ?= ecr
# The profile to measure, unless BENCH_BINARIES names a folder with the three release binaries.
PROFILE ?= release
# How many tests run at a time: most of them wait for other programs.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
# Runs a line of a recipe with a set of tools on PATH.
with_tools = environment=$$(tests/support/tools/install $(1)) && while read -r line; do export "$$line"; done <<<"$$environment" &&

help: ## show this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/' | expand -t 14

install: ## install action-build, action-publish and action-promote in ~/.cargo/bin
	cargo install --locked --path .

demo: ## take two images from Dockerfile to prod on this machine (STORE=oci: without AWS)
	@exemplar/demo/run "$(STORE)"

test: ## run all tests, against real builders and registries
	@$(call with_tools,test) cargo test --workspace --no-fail-fast

newest: ## run the tests of builders and copy tools with the newest versions that Debian has
	@$(call with_tools,newest) cargo test --test blackbox --no-fail-fast -- build publish_stores referrers chain signatures transfer promote

e2e: ## run the exemplar's workflows from commit to prod, with wrkflw, act and an AWS on this machine
	@tests/e2e/run

conformance: ## run what other projects test themselves with, and print a table (SUITE=TEXT: the suites with it in their names)
	@$(call with_tools,conformance) cargo test --quiet --test conformance -- $(SUITE)

bench: ## compare publish and promote with the newest other copy tools that Debian has, and build with docker buildx (BENCH_BINARIES=FOLDER: use the binaries in it)
	@$(call with_tools,newest) cargo bench --profile "$(PROFILE)" --bench peers

fuzz: ## fuzz everything that reads bytes from outside (FUZZ_SECONDS=60: time for each target)
	@fuzz/run "$(or $(FUZZ_SECONDS),10)"

lint: ## check formatting, run clippy and build the documentation; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	cargo clippy --test conformance -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --workspace --no-deps --lib

# The entry points that a person needs. Each installs what it needs, in a folder outside the checkout.

.DEFAULT_GOAL := help
.PHONY: help demo test e2e bench fuzz lint
SHELL := bash

# What the demo's registry is: an AWS that runs on this machine (ecr), or a folder (oci).
STORE ?= ecr
# What is measured, unless BENCH_BINARIES names a folder with the three binaries as they ship.
PROFILE ?= release
# Runs a recipe's line with the tools on PATH.
WITH_TOOLS := environment=$$(tests/support/tools/install test) && while read -r line; do export "$$line"; done <<<"$$environment" &&

help: ## this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/' | expand -t 14

demo: ## two images from Dockerfile to prod, on this machine (STORE=oci: without AWS)
	@exemplar/demo/run "$(STORE)"

test: ## all tests, against real builders and registries
	@$(WITH_TOOLS) cargo test --workspace

e2e: ## the exemplar's workflows from commit to prod, run by wrkflw against an AWS on this machine
	@tests/e2e/run

bench: ## publish and promote beside other programs that copy images, build beside docker buildx (BENCH_BINARIES=FOLDER: those in it)
	@$(WITH_TOOLS) cargo bench --profile "$(PROFILE)" --bench peers

fuzz: ## what reads bytes from outside, against bytes that nobody would write (FUZZ_SECONDS=60: for each target)
	@fuzz/run "$(or $(FUZZ_SECONDS),10)"

lint: ## formatting and clippy; a warning fails
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

# The front door. Everything is done by the scripts it names; each says what it does, and does nothing when it is
# done already.
#
#   make run      a living cluster on this machine, from nothing: packages, engine, web page, product, aiv dev
#   make test     all tests; the last line counts them
SHELL := /bin/bash
.DEFAULT_GOAL := build
# Passed on: make run ARGS='--gpus "GTX 1080:8GiB;RTX 3060:12GiB" --port 9000'; make test ARGS='-R vgpu'
ARGS ?=
PRESET ?= release
export AIV_ENGINE
# Seeds for each of the 13 scenarios with faults: 10,010 runs.
AIV_SIM_NIGHTLY ?= 770
.PHONY: faults sim-nightly same-everywhere experiments run build engine test check-asan check-clang format bench gpu-check gpu-check-pack demo-model clean help

run: ## everything it takes, then `aiv dev` (ARGS="...")
	@scripts/setup.sh build run
	@scripts/link-engine.sh $(PRESET)
	@scripts/build-warm.sh $(PRESET) first product
	@exec scripts/run.sh $(PRESET) $(ARGS)

build: ## the product with its page and engine, tests too
	@scripts/setup.sh build run test bench
	@scripts/link-engine.sh $(PRESET)
	@scripts/build-web.sh
	@scripts/build.sh $(PRESET)
	@scripts/demo-model.sh $(PRESET)

engine: ## the engine only
	@scripts/setup.sh build run
	@scripts/link-engine.sh $(PRESET)

test: ## all tests, real engine included (ARGS="..." goes to ctest)
	@scripts/setup.sh build run test bench
	@scripts/link-engine.sh $(PRESET)
	@scripts/build-warm.sh $(PRESET) all
	@scripts/fetch-promtool.sh
	@scripts/run-tests.sh $(PRESET) $(ARGS)

check-asan: ## unit tests under AddressSanitizer and UBSan
	@scripts/setup.sh build run test bench
	@scripts/build-web.sh
	@scripts/build.sh asan
	@scripts/run-tests.sh asan -LE e2e $(ARGS)

same-everywhere: ## plans byte by byte, simulated runs event by event: g++ and clang 19, -O0 and -O2, all the same?
	@scripts/setup.sh build run test bench clang
	@scripts/same-everywhere.sh $(ARGS)

check-clang: ## compiled by clang 19 as well, unit tests
	@scripts/setup.sh build run test bench clang
	@scripts/build-web.sh
	@scripts/build.sh clang
	@scripts/run-tests.sh clang -LE e2e $(ARGS)
	@scripts/same-everywhere.sh 2 20

format: ## clang-format over our own C++
	@scripts/setup.sh format
	@git ls-files '*.cpp' '*.hpp' | xargs clang-format-19 -i

bench: ## benchmarks; they print and do not judge
	@scripts/setup.sh build run test bench
	@scripts/link-engine.sh release
	@scripts/build.sh release
	@scripts/run-benches.sh $(ARGS)

AWAY_ARGS ?= --rate 2
faults: ## the fault run: >= 60 seeded faults under load (ARGS="--seed 2"), then ten minutes without a controller (AWAY_ARGS="--controller-away 60")
	@scripts/setup.sh build run test
	@scripts/build.sh release
	@tests/e2e/prepare.sh
	@AIV_BIN=build/release/bin/aiv node bench/faults/run.mjs $(ARGS)
	@AIV_BIN=build/release/bin/aiv node bench/faults/catalogue.mjs --part away $(AWAY_ARGS)

sim-nightly: ## 10,000 simulated clusters with faults; seeds from the date (AIV_SIM_FIRST sets the first)
	@scripts/setup.sh build run test
	@scripts/build.sh release sim_seeds
	@scripts/sim-nightly.sh $(AIV_SIM_NIGHTLY)

experiments: ## the simulated experiments of docs/experiments.md
	@scripts/setup.sh build run test bench
	@scripts/build.sh release experiments_bench aiv
	@bench/experiments/run.sh $(ARGS)

gpu-check-pack: ## dist/gpu-check.tar.gz, for a machine with a GPU and no network
	@scripts/setup.sh build run test bench
	@scripts/link-engine.sh release
	@scripts/build-web.sh
	@scripts/build.sh release product
	@scripts/pack-gpu-check.sh

gpu-check: ## the contract on this machine's real GPU; exit 3 without one
	@scripts/gpu-check.sh $(ARGS)

demo-model: ## trains models/demo.gguf anew, about half an hour on two cores
	@scripts/setup.sh build demo
	@scripts/build.sh release aiv-demo-train
	@tools/demo-model/make build/release

clean: ## build folders and packs; downloads and the engine stay (.cache)
	@rm -rf build dist web/dist

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 18

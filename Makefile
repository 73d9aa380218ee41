# `make` alone says what there is.
.DEFAULT_GOAL := help
.PHONY: help setup up down check test test-newer-engine test-system lab lab-down bench bench-scale soak fuzz lock format clean

BIN := .venv/bin
SHELL_SCRIPTS := .ci/run $(wildcard tools/*.sh src/kohakuriver/runner/engines/docker/vps/*.sh)

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 28

setup: ## Install what is missing (Debian packages, .venv) and see that a Docker engine answers
	@tools/setup.sh run

up: setup ## A whole cluster on this machine; ends with the first task's output and the addresses
	@$(BIN)/kohakuriver up

down: ## End that cluster; records and files stay
	@test ! -x $(BIN)/kohakuriver || $(BIN)/kohakuriver down

check: ## Format, lint, types, import rules, shape limits, shell scripts
	@tools/setup.sh check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_shape.py
	@for script in $(SHELL_SCRIPTS); do bash -n $$script || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck -S warning $(SHELL_SCRIPTS); \
	else echo "check: shellcheck is not installed, shell scripts were only parsed"; fi

test: ## Setup, check and all lanes of tests (CI=true: with test-system in short, and a missing engine is a failure)
	@tools/run_tests.sh

test-newer-engine: ## All that has to do with the engine, on a newer one than this machine's: [TESTS="FILES…"] [RELEASE=testing]
	@tools/setup.sh test
	@$(BIN)/python tools/newer_engine.py $(if $(RELEASE),--release $(RELEASE)) $(TESTS)

test-system: ## The lane in an emulated machine with systemd and cgroup v2: [SHORT=1]
	@tools/setup.sh system
	$(BIN)/pytest -q --timeout=3600 $(if $(SHORT),-m short) tests/system

lab: ## A cluster of several nodes on this machine, to break by hand: [NODES=3] (docs/lab.md)
	@tools/setup.sh test
	@$(BIN)/python tools/lab.py up --nodes $(or $(NODES),3)

lab-down: ## End it, and what killed test runs left of theirs
	@test ! -x $(BIN)/python || $(BIN)/python tools/lab.py down

bench: ## Measure against the bare engine; figures go to bench/results/
	@tools/setup.sh test
	$(BIN)/python bench/run.py

bench-scale: ## Measure the control plane at size, with fake runners: [SECONDS=60]
	@tools/setup.sh test
	$(BIN)/python bench/scale/run.py $(if $(SECONDS),--seconds $(SECONDS))

soak: ## Break a lab cluster at random under tasks, and judge: [MINUTES=10] [TASKS=1000] [SEED=N]
	@tools/setup.sh test
	$(BIN)/python tools/soak.py $(if $(MINUTES),--minutes $(MINUTES)) $(if $(TASKS),--tasks $(TASKS)) \
		$(if $(NODES),--nodes $(NODES)) $(if $(SEED),--seed $(SEED)) $(if $(KINDS),--kinds $(KINDS))

fuzz: ## Search at random for messages that break something: [MINUTES=5]
	@tools/setup.sh test
	@end=$$(($$(date +%s) + 60 * $(or $(MINUTES),5))); while [ $$(date +%s) -lt $$end ]; do \
		FUZZ_EXAMPLES=300 $(BIN)/pytest -q -x --timeout=1800 tests/fuzz --deselect tests/fuzz/test_rediscovery.py || exit 1; \
	done

lock: ## Choose the newest permitted versions and write requirements*.lock
	@tools/lock.sh

format: ## Format the code
	@tools/setup.sh check
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .

clean: ## Remove .venv and what tools cached; .cache/ (images for tests, a running dockerd's pid) stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

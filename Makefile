# Every verb sets up .venv first, when it is not there or not what requirements.lock says. See `make help`.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
PACKAGES := evergreen pipeline components trainer transform serving datagen
RUNNERS := $(wildcard local_runner.py kubeflow_runner.py)
# What a verb passes on: make run ARGS="--fresh", make test ARGS="-k spans".
ARGS ?=
# The folder that `make tensorboard` shows.
LOGDIR ?= runs

.PHONY: help run kubeflow test test-fast lint bench bench-data bench-train bench-tune bench-warm bench-predict bench-gpu bench-tables tensorboard docs lock image test-cluster bench-cluster test-flink flink-up flink-down clean venv

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS is passed on: make run ARGS="--help", make test ARGS="-k spans", make bench ARGS="--repeat 3"'

run: venv ## Run the whole pipeline on this machine
	@$(PYTHON) local_runner.py $(ARGS)

kubeflow: venv ## Compile the pipeline for Kubeflow, and check it with our rules and Kubeflow's own code
	@$(PYTHON) kubeflow_runner.py compile --no-backend --output runs/kubeflow/pipeline.yaml $(ARGS)
	@$(PYTHON) kubeflow_runner.py check --require-backend runs/kubeflow/pipeline.yaml

test: venv ## Run every test, the fast ones first
	@$(PYTHON) -m pytest $(ARGS)

test-fast: venv ## Run the tests that take seconds
	@$(PYTHON) -m pytest -m "not slow and not e2e" $(ARGS)

test-cluster: venv ## Run the pipeline on a real cluster, with everything that can happen to it (docs/kubeflow.md)
	@sh tests/cluster/run.sh $(ARGS)

bench-cluster: venv ## Measure on a real cluster what a step costs beside its work, with a naive image and with ours
	@sh tests/cluster/run.sh startup

test-flink: venv ## Run the data nodes on a Flink of two workers, beside the local run (needs Java and Maven)
	@$(PYTHON) -m pytest -m flink $(ARGS)

flink-up: venv ## Start Apache Flink on this machine; then: make run ARGS="--environment configs/environments/flink.yaml"
	@$(PYTHON) -m pipeline.flink up $(ARGS)

flink-down: venv ## End it
	@$(PYTHON) -m pipeline.flink down $(ARGS)

lint: venv ## Check style, types and the layers of imports
	@failed=; \
	$(PYTHON) -m ruff check . || failed=1; \
	$(PYTHON) -m ruff format --check . || failed=1; \
	$(PYTHON) -m mypy $(PACKAGES) benchmarks $(RUNNERS) || failed=1; \
	.venv/bin/lint-imports --no-logo || failed=1; \
	[ -z "$$failed" ]

bench: venv ## Race the pipeline against the stock TFX components
	@$(PYTHON) -m benchmarks.pipeline $(ARGS)

bench-data: venv ## Race the data nodes against the stock ones, on a table like taxi trips
	@$(PYTHON) -m benchmarks.data $(ARGS)

bench-train: venv ## Race input and training against TFX's and TensorFlow's own ways
	@$(PYTHON) -m benchmarks.train $(ARGS)

bench-tune: venv ## Race parallel trials against sequential ones, Hyperband against random search
	@$(PYTHON) -m benchmarks.tune $(ARGS)

bench-warm: venv ## Count the steps that a warm start saves
	@$(PYTHON) -m benchmarks.warm $(ARGS)

bench-predict: venv ## Race batch prediction against TFX's BulkInferrer
	@$(PYTHON) -m benchmarks.predict $(ARGS)

bench-gpu: venv ## Measure training on the GPUs of this machine
	@$(PYTHON) -m benchmarks.gpu $(ARGS)

bench-tables: venv ## Take scikit-learn's tables from `new` to a serving model, beside its own models
	@$(PYTHON) -m benchmarks.tables $(ARGS)

tensorboard: venv ## Show the training logs on a page of this machine (LOGDIR=runs)
	@.venv/bin/tensorboard --logdir $(LOGDIR) $(ARGS)

docs: venv ## Write docs/configuration.md anew from the types
	@$(PYTHON) -m pipeline.reference > docs/configuration.md

lock: venv ## Pin requirements.in anew, with hashes
	@.venv/bin/uv pip compile --python-version 3.10 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --quiet $(ARGS) requirements.in -o requirements.lock
	@sh image/lock.sh $(ARGS)

image: ## Build the image from the Dockerfile with buildah (VARIANT=gpu with CUDA), and write it to image/out
	@sh image/build.sh

clean: ## Remove .venv, caches and what the benchmarks left; data and runs stay
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis benchmarks/out *.egg-info

venv:
	@sh scripts/setup-venv.sh

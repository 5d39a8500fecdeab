# Every target makes the environment first, in .venv, with the pins of constraints.txt.
PYTHON ?= python3
WORKERS ?= 2
# Of a campaign: folder of the data sets, experiments, MOVE=1 to move it to this checkout's commit, and CAMPAIGN=FOLDER for
# another worktree than the one beside this checkout.
DATA_ROOT ?= .data
EXPERIMENTS ?= all
MOVE ?=
CAMPAIGN ?=
# Of the pipeline: SCALE=cifar100 takes another scale than the configuration's, CONFIG=train=never sets more of it, ARGS are
# more words for Snakemake.
SCALE ?=
CONFIG ?=
ARGS ?=
MADE = $(lastword $(SCALE) $(patsubst scale=%,%,$(filter scale=%,$(CONFIG))))
READY := .venv/.ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help reproduce test test-all lint docs bench campaign publish soak clean

help: ## print these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-18s %s\n", $$1, $$2 }'

reproduce: $(READY) ## the pipeline from settings to report, with what is missing (SCALE=... another scale)
	@PYTHONPATH=workflow/scripts$${PYTHONPATH:+:$$PYTHONPATH} snakemake --cores all --logger spfde \
	  $(if $(SCALE)$(CONFIG),--config $(if $(SCALE),scale=$(SCALE)) $(CONFIG)) $(ARGS)
	@spfde show $(if $(MADE),--scale $(MADE))

test: $(READY) ## the tests, ten minutes at most on two cores
	OMP_NUM_THREADS=1 pytest -n $(WORKERS)

test-all: docs ## all tests: with SLURM where it is installed, the docs, slow networks
	OMP_NUM_THREADS=1 pytest -n $(WORKERS) -m "not soak" --timeout 900

lint: $(READY) ## style, types, layers, and the workflow's files
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache
	snakefmt --check Snakefile workflow
	snakemake --lint
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --offline --quiet .github

docs: $(READY) ## the documentation site, in build/site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

bench: $(READY) ## measure steps, loader and updates against the fastest dense ones, on this machine
	spfde bench speed

campaign: ## train SCALE's runs for days, in a worktree of their own beside this one (DATA_ROOT=DIR)
	@$(PYTHON) workflow/scripts/campaign.py --scale $(or $(SCALE),cifar100-short) --data-root "$(DATA_ROOT)" \
	  --experiments $(EXPERIMENTS) $(if $(CAMPAIGN),--folder "$(CAMPAIGN)") $(if $(MOVE),--move)

publish: $(READY) ## take over what a campaign has finished, into results/published
	spfde publish --scale $(or $(SCALE),cifar100-short) --to results/published \
	  --results "$(or $(CAMPAIGN),$$(pwd -P)-campaign)/results"

soak: $(READY) ## endurance: a hundred kills, ten minutes of bad input of each kind, 300 mutants (many hours)
	pytest -m soak --timeout 7200
	SPFDE_FUZZ_SECONDS=600 pytest -s tests/fuzzing --timeout 1200
	python -m tests.soak.mutants --count 300

clean: ## remove everything generated but the environment, the decoded data and what git keeps
	if [ -d results ]; then \
	  find results -mindepth 1 -maxdepth 1 ! -name published ! -name README.md -exec rm -rf {} +; fi
	rm -rf .snakemake

$(READY): pyproject.toml constraints.txt setup.py $(wildcard spfde/kernels/build.py) $(wildcard spfde/kernels/cpp/*)
	@$(PYTHON) workflow/scripts/environment.py

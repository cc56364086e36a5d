# Needs GNU make, bash and a Python with venv; `make help` lists what there is.
#   PYTHON    interpreters to try, in this order         make test PYTHON=python3.12
#   PIP_ARGS  passed to every pip install                make test PIP_ARGS='--no-index -f wheels'

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3.11 python3.12 python3
PIP_ARGS ?=
PYTEST_ARGS ?=
# A process for each processor, four at most for their memory; a file's tests share its fixtures.
BESIDE := -n auto --maxprocesses 4 --dist loadfile
BENCH_ARGS ?= stages

VENV := .venv
VENV_DEMO := .venv-demo
VENV_CPU := .venv-cpu
EXTRAS := cpu,openvino,trt-rtx,train,export,report,dicom,bench
SETTINGS := pyproject.toml constraints.txt constraints-3.10.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# $(call create,ENVIRONMENT,OLDEST PYTHON)
define create
	python=$$(scripts/find_python $(2) $(PYTHON)); "$$python" -m venv $(1); touch $(1)/.created
endef

# $(call install,ENVIRONMENT,WHAT): with everything in one call, so that pip resolves it once.
define install
	pins=$$($(1)/bin/python -c 'import sys; print("constraints-3.10.txt" if sys.version_info < (3, 11) else "constraints.txt")'); \
	echo "installing into $(1) under $$pins ..."; \
	$(1)/bin/python -m pip install -q $(PIP_ARGS) -c $$pins --upgrade pip; \
	$(1)/bin/python -m pip install -q $(PIP_ARGS) -c $$pins --build-constraint $$pins $(2); \
	touch $(1)/.installed
endef

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

# --- environments: a second call installs again only when the settings have changed

$(VENV)/.created:
	@$(call create,$(VENV),3.11)

$(VENV)/.installed: $(VENV)/.created $(SETTINGS)
	@$(call install,$(VENV),-e '.[$(EXTRAS)]' --group dev)

$(VENV_DEMO)/.created:
	@$(call create,$(VENV_DEMO),3.10)

$(VENV_DEMO)/.installed: $(VENV_DEMO)/.created $(SETTINGS)
	@$(call install,$(VENV_DEMO),-e '.[openvino]')

$(VENV_CPU)/.created:
	@$(call create,$(VENV_CPU),3.10)

$(VENV_CPU)/.installed: $(VENV_CPU)/.created $(SETTINGS)
	@$(call install,$(VENV_CPU),-e '.[cpu]')

# --- what people call

.PHONY: demo
demo: $(VENV_DEMO)/.installed ## make one phantom scan and segment it, without torch
	@rm -rf demo
	@$(VENV_DEMO)/bin/kits-phantom demo/scans --cases 1 --seed 7 --size 120,512,512 --spacing 3,0.8,0.8
	@$(VENV_DEMO)/bin/kits-infer -i demo/scans/case_00000/imaging.nii.gz -o demo/out --preview
	@mask=$$(ls demo/out/*.nii.gz); picture=$$(ls demo/out/*.png); timings=$$(ls demo/out/*.json); \
	printf 'scan      %s\nmask      %s\npicture   %s\ntimings   %s\n' \
	  demo/scans/case_00000/imaging.nii.gz "$$mask" "$$picture" "$$timings"

.PHONY: test
test: lint ## everything that CI checks: format, lint, types, import contracts, tests
	@$(VENV)/bin/python -m pytest $(BESIDE) -m 'not slow and not gpu' $(PYTEST_ARGS)

.PHONY: test-all
test-all: lint lean ## the same with the slow tests and the size of the lean environments
	@$(VENV)/bin/python -m pytest -m 'not gpu' $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.installed ## format, lint, types and import contracts only
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

.PHONY: lean
lean: $(VENV_DEMO)/.installed $(VENV_CPU)/.installed ## check the size of the lean environments
	@$(VENV_DEMO)/bin/python scripts/lean_size.py 500
	@$(VENV_CPU)/bin/python scripts/lean_size.py 400

.PHONY: bench
bench: $(VENV)/.installed ## measure; BENCH_ARGS goes to kits-bench
	@$(VENV)/bin/kits-bench $(BENCH_ARGS)

.PHONY: docs-tables
docs-tables: $(VENV)/.installed ## write docs/benchmarks.md and MODEL_CARD.md from the committed records
	@$(VENV)/bin/python -m kits_bench.docs
	@$(VENV)/bin/python -m kits_bench.model_card

# The recipe of the bundle in the package: phantoms alone, and counted steps, so that it can be made again. With
# ANATOMY=DIR, a KiTS folder, phantoms are drawn around its label maps, and the bundle stays in its run's folder.
# The kidney net learns from trunks, the tumour net from what lies around kidneys, as sharp as scanners show it.
# Validated at the end alone: twelve phantoms are too few to choose an epoch by. Some nine hours of one core; THREADS of
# them are taken.
ANATOMY ?=
BUNDLE_RUN := out/$(if $(ANATOMY),anatomy,default)-bundle
THREADS ?= 2
TEACH := $(if $(ANATOMY),--anatomy "$(ANATOMY)",--cases 1280 --varied) --seed 0
VALIDATE := --cases 12 --varied --seed 1000000
TRAIN := $(VENV)/bin/kits-train resunet-msvnet --preset small --amp --epochs 1000 --validate-every 1000 --threads $(THREADS) \
  --validation-data $(BUNDLE_RUN)/validate --out $(BUNDLE_RUN)/run
EXPORT := $(VENV)/bin/$(if $(ANATOMY),kits-export --overwrite -o $(BUNDLE_RUN)/resunet-msvnet.kits,python -m kits_export.default_bundle)

# $(call phantoms,NAME,FOR WHAT,WHICH): in the run's folder, once and whole
define phantoms
	test -d $(BUNDLE_RUN)/$(1) || { $(VENV)/bin/kits-phantom $(BUNDLE_RUN)/$(1).part --overwrite --for-training $(2) $(3); \
	  mv $(BUNDLE_RUN)/$(1).part $(BUNDLE_RUN)/$(1); }
endef

.PHONY: default-bundle
default-bundle: $(VENV)/.installed ## train the bundle in the package and export it again
	@rm -rf $(BUNDLE_RUN)/run
	@$(call phantoms,trunks,192,$(TEACH))
	@$(call phantoms,kidneys,kidneys,$(TEACH))
	@$(call phantoms,validate,192,$(VALIDATE))
	@$(TRAIN) --net resunet3d --data $(BUNDLE_RUN)/trunks --max-steps 6600
	@$(TRAIN) --net msvnet --data $(BUNDLE_RUN)/kidneys --max-steps 68100
	@$(EXPORT) --ckpt $(BUNDLE_RUN)/run/best.safetensors

# What cannot be installed side by side is resolved apart; see CONTRIBUTING.md.
.PHONY: pins
pins: ## resolve afresh and rewrite the constraints file of the chosen Python
	@rm -rf .venv-pins; $(call create,.venv-pins,3.10)
	@.venv-pins/bin/python -m pip install -q $(PIP_ARGS) --upgrade pip
	@resolve=(.venv-pins/bin/python -m pip install -q $(PIP_ARGS) --dry-run --ignore-installed --report); \
	if .venv-pins/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 11))'; then \
	  out=constraints-3.10.txt; \
	  "$${resolve[@]}" .venv-pins/cpu.json pip editables hatchling pytest hypothesis -e '.[cpu,openvino,dicom,report]'; \
	else \
	  out=constraints.txt; \
	  "$${resolve[@]}" .venv-pins/cpu.json pip editables torch==2.13.0 -e '.[$(EXTRAS)]' --group dev; \
	fi; \
	"$${resolve[@]}" .venv-pins/gpu.json -e '.[gpu,trt-rtx]'; \
	.venv-pins/bin/python scripts/write_constraints.py $$out .venv-pins/cpu.json .venv-pins/gpu.json

.PHONY: clean
clean: ## remove the environments and everything that was built
	rm -rf .venv .venv-* demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find runtime kits_trt export benchmarks tests scripts -name __pycache__ -prune -exec rm -rf {} +

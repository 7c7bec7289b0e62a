# Every task of the project by name. Each target sets up what it needs; repeated calls are quick.
#   make demo      see it work: a phantom patient, a report with pictures
#   make test      the default test suite          make test-slow  the longer tests
#   make lint      ruff and mypy                   make bench      benchmarks (Testing/benchmarks)
#   make starter   train the starter model again   make real-t1ce  train and test on real patients
#   make fuzz      25,000 damaged files            make bench-gpu benchmarks on an NVIDIA card
#   make clean     remove what was built here      make real-comparison  compare methods on real patients

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# the first interpreter that runs and is Python 3.11 or newer (a version manager's shim may exist and not run)
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	$$p -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: help setup system-packages test-libraries demo test test-slow fuzz lint format bench bench-gpu starter \
	medprompt-phantoms aldm-phantoms eva-phantoms real-t1ce real-comparison clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(STAMP)

# torch first and pinned: whatever depends on it then finds it and does not fetch another build
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; install it (Debian, Ubuntu: apt-get install python3 python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(MAKE) --no-print-directory system-packages && $(PYTHON) -m venv $(VENV); }
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Debian packages, each only where it is missing: Python's venv module, where Python came without it ...
system-packages: test-libraries
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq python3-venv; \
	else echo "needed: the package python3-venv (Debian, Ubuntu: sudo apt-get install python3-venv)" >&2; exit 1; fi

# ... and what Qt and VTK load at run time, which only the tests of the Slicer part use; without it they skip, saying so
LIBRARIES := libEGL.so.1:libegl1 libGL.so.1:libgl1 libX11.so.6:libx11-6 libxkbcommon.so.0:libxkbcommon0 \
	libdbus-1.so.3:libdbus-1-3 libfontconfig.so.1:libfontconfig1 libglib-2.0.so.0:libglib2.0-0 libOSMesa.so.8:libosmesa6
test-libraries:
	@known=$$(PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null) || exit 0; missing=""; \
	for pair in $(LIBRARIES); do [[ "$$known" == *"$${pair%%:*} "* ]] || missing="$$missing $${pair##*:}"; done; \
	[ -n "$$(find /usr/share/fonts -name '*.ttf' -print -quit 2>/dev/null)" ] || missing="$$missing fonts-dejavu-core"; \
	if [ -z "$$missing" ]; then exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq; \
		for package in $$missing; do apt-get install -y -qq $$package || echo "not to be had: $$package" >&2; done; \
	else echo "for the tests of the Slicer part (Debian, Ubuntu): sudo apt-get install$$missing" >&2; fi

demo: $(STAMP)
	$(BIN)/medxlate demo --out demo

# two workers on two cores, one thread each: threads of several workers would only get in each other's way
test: $(STAMP) test-libraries
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup

test-slow: $(STAMP) test-libraries
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup -m slow --timeout 3600

# 25,000 damaged NIfTI files and model packages: an error with a code, or exactly what was written
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup -m fuzz

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# speed is a ratio against a named reference, measured in one run; see Docs/results
bench: $(STAMP)
	$(BIN)/python Testing/benchmarks/tlp_inference.py --volume --profile --json Docs/results/speed/tlp-inference.json
	$(BIN)/python Testing/benchmarks/medprompt_inference.py --json Docs/results/speed/medprompt-inference.json
	$(BIN)/python Testing/benchmarks/session_edit.py --json Docs/results/speed/session-edit.json
	$(BIN)/python Testing/benchmarks/training_memory.py --json Docs/results/memory/training.json

# the same on a machine with an NVIDIA card, half precision with it; minutes
bench-gpu: $(STAMP)
	$(BIN)/python Testing/benchmarks/tlp_inference.py --device cuda --bf16 --volume --profile \
		--json Docs/results/speed/tlp-inference-gpu.json
	$(BIN)/python Testing/benchmarks/medprompt_inference.py --device cuda --bf16 \
		--json Docs/results/speed/medprompt-inference-gpu.json

# phantoms, training and installation of the model that ships: about an hour on two cores
starter: $(STAMP)
	$(BIN)/medxlate phantom --out runs/starter/phantoms --cases 120 --seed 1000 --size 96 120 52 \
		--modalities T1,T2,T1ce --splits 112,8,0 --vary-acquisition --jobs 2 --overwrite
	$(BIN)/medxlate train --preset tlp-starter --data runs/starter/phantoms/cases.csv --out runs/starter/run
	rm -rf MedXlateCore/resources/models/starter && mkdir -p MedXlateCore/resources/models
	cp -r runs/starter/run/model MedXlateCore/resources/models/starter

# the table of Docs/results/medprompt-phantoms: one network for six directions; about an hour on one core
medprompt-phantoms: $(STAMP)
	$(BIN)/medxlate phantom --out runs/medprompt-phantoms/phantoms --cases 72 --seed 2000 --size 96 120 40 \
		--modalities T1,T2,FLAIR,CT,PET --splits 56,4,12 --vary-acquisition --jobs 2 --overwrite
	OMP_NUM_THREADS=1 $(BIN)/medxlate experiment Docs/results/medprompt-phantoms/experiment.toml --out runs/medprompt-phantoms/out

# the tables of Docs/results/eva-phantoms: a target told in words; about an hour on one core
eva-phantoms: $(STAMP)
	test -f runs/eva-phantoms/phantoms/scans.csv || $(BIN)/medxlate phantom --out runs/eva-phantoms/phantoms --cases 76 \
		--seed 4000 --size 96 112 40 --splits 56,4,16 --scans 8 --with-ct --jobs 2 --overwrite \
		--hold-out T1+contrast+fat_suppressed+1.5T --hold-out T2+fat_suppressed+te=90..110
	OMP_NUM_THREADS=1 $(BIN)/python Docs/results/eva-phantoms/run.py --work runs/eva-phantoms --data ../shared/data

# the tables of Docs/results/aldm-phantoms: ALDM in three stages, a U-Net beside it; 70 minutes on two cores
aldm-phantoms: $(STAMP)
	$(BIN)/medxlate phantom --out runs/aldm-phantoms/phantoms --cases 144 --seed 3000 --size 80 96 40 \
		--modalities T1,T2,FLAIR --acquisition T1:bias=0 --acquisition T2:bias=0 --acquisition FLAIR:bias=0 \
		--splits 128,4,12 --jobs 2 --overwrite
	$(BIN)/python Docs/results/aldm-phantoms/run.py --work runs/aldm-phantoms

# the table of Docs/results/real-t1ce, where the real volumes lie beside the checkout
real-t1ce: $(STAMP)
	$(BIN)/python Docs/results/real-t1ce/run.py --data ../shared/data --work runs/real-t1ce

# the tables of Docs/results/real-comparison, from real volumes too; goes on where it was interrupted
real-comparison: $(STAMP)
	$(BIN)/python Docs/results/real-comparison/run.py --data ../shared/data --work runs/real-comparison

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

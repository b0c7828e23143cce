# make run    the whole pipeline on sounds that it makes itself: offline, a minute or two
# make test   the tests
# make coverage  which lines the tests never run: twice as long
# make esc50  the real thing: downloads ESC-50 (600 MB) and the official Cnn14 (327 MB)
# make lint   format and code checks
# make bench  speed against panns-inference, on DATASET (a folder of step 1 with real clips)
# make fuzz   broken files by the million, MINUTES for each kind: Linux
# make compact  trains models/cnn14_compact.pth anew, on ESC50 and SOUNDS (folders): hours on a laptop
# make lock   requirements/*.lock anew from the requirements files; make licences: LICENCES.md anew from the locks
# make audit  asks the advisory database about every locked version (online)
# make detector makes models/detector.npz anew, of the same folders; TWINS: networks that some recordings were kept from
PYTHON ?= python3
DATASET ?= dataset
ESC50 ?= dataset/ESC-50-master
SOUNDS ?=
TWINS ?=
MINUTES ?= 1
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
RUN := $(BIN)/python
TRAININGS := train_rf_model.py train_logreg_model.py train_mlp_model.py

# What has a lock comes with the hashes of requirements/*.lock, or not at all. What is left is PyTorch: in the build that
# is here already, or as pip finds it (requirements/README.md).
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
LOCKS := $(wildcard requirements/*.lock)

.PHONY: help run test esc50 lint format bench fuzz coverage compact lock licences audit detector clean
help:
	@sed -n 's/^# make/make/p' Makefile

.venv/.run-installed: requirements.txt $(LOCKS)
	$(PYTHON) -m venv .venv
	$(PIP) install --require-hashes -r requirements/base.lock
	$(PIP) install -r requirements.txt
	touch $@

.venv/.dev-installed: requirements.txt requirements/dev.txt requirements/cluster.txt requirements/live.txt $(LOCKS)
	$(PYTHON) -m venv .venv
	$(PIP) install --require-hashes -r requirements/dev.lock -r requirements/live.lock
	$(PIP) install -r requirements/dev.txt
	touch $@ .venv/.run-installed

.venv/.bench-installed: .venv/.dev-installed requirements/bench.txt
	$(PIP) install --require-hashes -r requirements/bench.lock
	$(PIP) install -r requirements/bench.txt
	touch $@

run: .venv/.run-installed
	$(RUN) filterAudioToDangerousAndSafe.py --sample --output sample
	$(RUN) extractEmbeddingCnn14.py --dataset sample --checkpoint compact --output sample/audio_embeddings.csv
	for script in $(TRAININGS); do \
	  $(RUN) $$script --embeddings sample/audio_embeddings.csv --output-dir sample || exit 1; done
	$(RUN) measure_false_alarms.py --embeddings sample/audio_embeddings.csv --output-dir sample
	$(RUN) compare_models.py --embeddings sample/audio_embeddings.csv --output-dir sample
	@echo "These sounds are synthetic: the scores show that the pipeline works, not how well it hears."

esc50: .venv/.run-installed
	$(RUN) filterAudioToDangerousAndSafe.py
	$(RUN) extractEmbeddingCnn14.py
	for script in $(TRAININGS); do $(RUN) $$script || exit 1; done
	$(RUN) measure_false_alarms.py
	$(RUN) compare_models.py

test: .venv/.dev-installed
	$(RUN) -m pytest -n auto --dist loadfile

# Scripts run in folders of their own: what they ran is to be collected here all the same.
coverage: export COVERAGE_FILE := $(CURDIR)/.coverage
coverage: .venv/.dev-installed
	$(RUN) -m coverage run -m pytest -n auto --dist loadfile
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report --fail-under=90

lint: .venv/.dev-installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: .venv/.dev-installed
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: .venv/.bench-installed
	$(RUN) benchmarks/bench.py --dataset $(DATASET)

.venv/.fuzz-installed: requirements.txt requirements/fuzz.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/fuzz.txt
	touch $@ .venv/.run-installed

fuzz: .venv/.fuzz-installed
	$(RUN) fuzz/fuzz.py --minutes $(MINUTES)

COMPACT := finetune_cnn14.py --same models/compact_same.toml --per-category 32 --bad-recordings 0.7 \
  --dangers dataset/categories_all.toml models/detector_categories.toml --holdout-fold none \
  --licence "CC BY-NC 3.0 (trained on ESC-50 and on sounds of which several forbid commercial use)"
FIRST := --dataset $(ESC50) $(SOUNDS) --checkpoint none --epochs 110
SECOND := --dataset $(ESC50) $(SOUNDS) models/quiet_rooms --epochs 16 --rate 5e-4
ROUND := --dataset $(ESC50) $(SOUNDS) models/quiet_rooms --epochs 48 --rate 1e-3

# From scratch; the mean of two stages; then three rounds, each on from the one before, and up to the full rate again.
# $(1): begin the files' names, $(2): more flags
define TRAIN
	$(RUN) $(COMPACT) $(FIRST) $(2) --output models/$(1)_first.pth
	$(RUN) $(COMPACT) $(SECOND) $(2) --checkpoint models/$(1)_first.pth --output models/$(1)_second.pth
	$(RUN) -m tools.average models/$(1)_first.pth models/$(1)_second.pth models/$(1)_round_0.pth
	for round in 1 2 3; do \
	  $(RUN) $(COMPACT) $(ROUND) $(2) --seed $$((round - 1)) --checkpoint models/$(1)_round_$$((round - 1)).pth \
	    --output models/$(1)_round_$$round.pth || exit 1; done
endef

models/quiet_rooms: .venv/.run-installed
	$(RUN) -m tools.quiet_rooms $@

compact: .venv/.run-installed models/quiet_rooms
	$(call TRAIN,compact,)
	cp models/compact_round_3.pth models/cnn14_compact.pth

lock: .venv/.dev-installed
	$(PIP) install uv==0.13.9
	$(RUN) -m tools.lock

licences: .venv/.dev-installed
	$(RUN) -m tools.licences

# Strict, or versions that the database does not answer for would pass as harmless.
audit: .venv/.dev-installed
	$(PIP) install pip-audit==2.10.1
	$(RUN) -m pip_audit --strict --disable-pip --require-hashes $(patsubst %,-r %,$(LOCKS))

detector: .venv/.run-installed
	$(RUN) -m tools.build_detector --dataset $(ESC50) $(SOUNDS) --twins $(TWINS)

clean:
	rm -rf sample .pytest_cache .ruff_cache

# make run    the whole pipeline on sounds that it makes itself: offline, a minute or two
# make test   the tests
# make coverage  which lines the tests never run: twice as long
# make esc50  the real thing: downloads ESC-50 (600 MB) and the official Cnn14 (327 MB)
# make lint   format, code and type checks
# make bench  speed against panns-inference, on DATASET (a folder of step 1 with real clips)
# make fuzz   broken files by the million, MINUTES for each kind: Linux
# make compact  trains models/compact.pth anew on SOUNDS (folders), without ESC50's recordings; TAGS: AudioSet's class list: three hours
# make lock   requirements/*.lock anew from the requirements files; make licences: LICENCES.md anew from the locks
# make audit  asks the advisory database about every locked version (online)
# make detector  makes models/detector.npz anew: of ESC50 and LABELLED clips, UNLABELLED sounds, ORDINARY long recordings (folders)
PYTHON ?= python3
DATASET ?= dataset
ESC50 ?= dataset/ESC-50-master
SOUNDS ?=
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
PIP := $(BIN)/python -m pip --disable-pip-version-check
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
	$(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=10

# Scripts run in folders of their own: what they ran is to be collected here all the same.
coverage: export COVERAGE_FILE := $(CURDIR)/.coverage
coverage: .venv/.dev-installed
	$(RUN) -m coverage run -m pytest -n auto --dist loadfile --no-loadscope-reorder
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report --fail-under=90

lint: .venv/.dev-installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright

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

# Collections that neither the network nor the detector's regression learns from: what is said of them comes from there.
HELD_OUT := Starluxa/sleep-sounds-by-starnoct ashutoshgngwr/noice Aweeesome-lab/ZeroHz
VALIDATION := speechdnn/Noises tyiannak/pyAudioAnalysis RedundantC/wis_part1

compact: .venv/.run-installed
	$(RUN) -m tools.distil --sounds $(SOUNDS) --without-esc50 $(ESC50) --hold-out $(HELD_OUT) $(VALIDATION) --tag-names $(TAGS)

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
	$(RUN) -m tools.build_detector --labelled $(ESC50) $(LABELLED) --unlabelled $(UNLABELLED) --ordinary $(ORDINARY) \
	  --hold-out $(HELD_OUT)
	$(RUN) -m tools.model_card

clean:
	rm -rf sample .pytest_cache .ruff_cache

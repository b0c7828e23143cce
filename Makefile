# make run       run the whole pipeline offline on synthetic sounds (a minute on two cores, after the installation)
# make esc50     run it on real sounds: downloads ESC-50 (600 MB) and the official Cnn14 (327 MB)
# make test      run the tests
# make coverage  list the lines that no test runs (takes twice as long)
# make lint      check format, code and types; make format fixes the first two
# make bench     compare the speed with panns-inference on DATASET (a folder of step 1 with real clips)
# make fuzz      fuzz every reader of files for MINUTES each (Linux)
# make lock      write requirements/*.lock from the requirements files; make licences writes LICENCES.md from the locks
# make audit     look up every locked version in the advisory database (online)
# make compact   train models/compact.pth on SOUNDS (folders) without ESC50's recordings; TAGS: AudioSet's class list (three hours)
# make detector  build models/detector.npz from ESC50 and LABELLED clips, UNLABELLED sounds and ORDINARY long recordings (folders)
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

# Locked packages are installed with the hashes of requirements/*.lock. The second install adds PyTorch, unless a build
# of it is already installed (requirements/README.md).
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
	@echo "These sounds are synthetic: the scores show that the pipeline works, not how accurate it is."

esc50: .venv/.run-installed
	$(RUN) filterAudioToDangerousAndSafe.py
	$(RUN) extractEmbeddingCnn14.py
	for script in $(TRAININGS); do $(RUN) $$script || exit 1; done
	$(RUN) measure_false_alarms.py
	$(RUN) compare_models.py

test: .venv/.dev-installed
	$(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations=10

# Tests run scripts in other working directories; the path is absolute so that their coverage is collected here.
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

# Collections for evaluation: neither the network nor the detector's regression is trained on them.
HELD_OUT := Starluxa/sleep-sounds-by-starnoct ashutoshgngwr/noice Aweeesome-lab/ZeroHz
VALIDATION := speechdnn/Noises tyiannak/pyAudioAnalysis RedundantC/wis_part1

compact: .venv/.run-installed
	$(RUN) -m tools.distil --sounds $(SOUNDS) --without-esc50 $(ESC50) --hold-out $(HELD_OUT) $(VALIDATION) --tag-names $(TAGS)

lock: .venv/.dev-installed
	$(PIP) install uv==0.13.9
	$(RUN) -m tools.lock

licences: .venv/.dev-installed
	$(RUN) -m tools.licences

# Without --strict, versions that the database does not know would pass.
audit: .venv/.dev-installed
	$(PIP) install pip-audit==2.10.1
	$(RUN) -m pip_audit --strict --disable-pip --require-hashes $(patsubst %,-r %,$(LOCKS))

detector: .venv/.run-installed
	$(RUN) -m tools.build_detector --labelled $(ESC50) $(LABELLED) --unlabelled $(UNLABELLED) --ordinary $(ORDINARY) \
	  --hold-out $(HELD_OUT)
	$(RUN) -m tools.model_card

clean:
	rm -rf sample .pytest_cache .ruff_cache

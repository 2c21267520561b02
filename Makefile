# `make help` lists the targets. PYTHON names the interpreter (3.11 or newer) that .venv is made with.
PYTHON ?= python3
IMAGE ?= examples/chair.png
OUT ?= out
CONFIG ?= model/training/configs/small.toml
RUN ?= runs/small
CHECKPOINT ?= model/checkpoints/small.safetensors
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help render test unit train serve web web-serve figures fuzz quality lint export engines bench docs wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

render: $(VENV)/.light ## draw an object from a picture: make render [IMAGE=photo.png] [OUT=out]
	$(BIN)/wavelet-triplane render "$(IMAGE)" --out "$(OUT)" --orbit 6

test: $(VENV)/.full ## run the test suite, up to four files at once
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

unit: $(VENV)/.full ## run the quick tests alone: a developer's inner loop
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile -m "not slow and not gpu"

serve: $(VENV)/.serve ## open a page on http://127.0.0.1:8000 that turns pictures into objects
	$(BIN)/wavelet-triplane serve

web: $(VENV)/.full ## make a static site that runs the shipped bundle in the browser: OUT/site (needs npm)
	$(BIN)/python export/to_web.py --out "$(OUT)/site"

web-serve: $(VENV)/.full ## ... and open it on http://127.0.0.1:8080
	$(BIN)/python export/to_web.py --out "$(OUT)/site" --serve

figures: $(VENV)/.full ## draw five figures of what happens to IMAGE into OUT/figures
	$(BIN)/python visualize_wavelet_triplane.py "$(IMAGE)" --out "$(OUT)/figures"

train: $(VENV)/.full ## train CONFIG into RUN, going on where it stopped, and make RUN/bundle
	$(BIN)/python -m model.training.train --config "$(CONFIG)" --out "$(RUN)"
	$(BIN)/python export/to_onnx.py --checkpoint "$(RUN)/model.safetensors" --out "$(RUN)/bundle"

lint: $(VENV)/.full ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

export: $(VENV)/.full ## write CHECKPOINT in every precision to OUT/bundle, after checking it against PyTorch
	$(BIN)/python export/to_onnx.py --checkpoint "$(CHECKPOINT)" --out "$(OUT)/bundle"

engines: $(VENV)/.full ## build TensorRT engines beside the bundle in OUT/bundle, after `make export`
	$(BIN)/python export/to_tensorrt.py --bundle "$(OUT)/bundle"

fuzz: $(VENV)/.full ## try 10,000 damaged inputs of each kind (half an hour)
	FUZZ_EXAMPLES=10000 $(BIN)/pytest tests/fuzz

quality: $(VENV)/.full ## measure the shipped bundle on held-out objects (hours on two cores)
	$(BIN)/python benchmarks/quality.py --json "$(OUT)/quality.json" --sheet "$(OUT)/quality.png"

bench: $(VENV)/.full ## time the runtime beside its peers (a quarter of an hour on two cores)
	$(BIN)/python benchmarks/latency.py --work "$(OUT)/bench" --json "$(OUT)/latency.json" --plot "$(OUT)/latency.png"
	$(BIN)/python benchmarks/scaling.py --json "$(OUT)/scaling.json" --plot "$(OUT)/scaling.png"

docs: $(VENV)/.full ## write docs/ and the API reference as pages into OUT/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir "$(abspath $(OUT))/docs"

wheel: $(VENV)/.full ## build the wheel into dist/
	$(BIN)/python -m build --wheel --quiet

clean: ## remove what the other targets made
	rm -rf $(VENV) out build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# The light install: NumPy, Pillow, ONNX Runtime and the command line's libraries, no PyTorch.
$(VENV)/.light: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Setting up $(VENV) without PyTorch ..."
	$(PIP) --editable '.[cpu]'
	@touch $@

$(VENV)/.serve: $(VENV)/.light
	@echo "Adding the server to $(VENV) ..."
	$(PIP) --editable '.[cpu,serve]'
	@touch $@

$(VENV)/.full: $(VENV)/.light
	@echo "Adding PyTorch and the development tools to $(VENV) ..."
	$(PIP) --editable '.[cpu,openvino,background,mesh,usd,video,serve,export,train,tensorrt-rtx,bench,docs,dev]'
	@touch $@

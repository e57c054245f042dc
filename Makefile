PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo
RUNS := 108
BLOCKS := 1000

.PHONY: setup demo test test-long test-gpu lint docs bench campaign soak clean
setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	# torch first and alone: a looser requirement would pull several GB of CUDA on a machine without a GPU.
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,kafka,optuna]'
	touch $@

# A generated log, its memory, and what candidates learn from it: a few minutes on two cores. The rehearsal weight
# is the one that `evaluate` chose here; given, nothing has to be trained to choose it.
demo: setup
	rm -rf $(DEMO)
	$(BIN)/diet-ray prepare --dataset drift --drift.rows 60000 --out $(DEMO)/log
	$(BIN)/diet-ray distill --config demo --data $(DEMO)/log --run $(DEMO)/run
	$(BIN)/diet-ray inspect $(DEMO)/run
	$(BIN)/diet-ray evaluate --run $(DEMO)/run --methods warmup,random,diet,full --candidates dcn,finalnet --seeds 2 --rehearsal-weight 1

# Two processes, each with a Ray of its own; a file's tests share what they set up, the longest files first.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-long: setup
	$(BIN)/python -m pytest -m long

# Where there is a GPU: does it compute what the CPU computes? (constraints.txt asks for a torch that may lack CUDA.)
test-gpu: setup
	$(BIN)/python -m pytest -m gpu

# One fault per run against the stream, at a random moment (docs/reliability.md).
campaign: setup
	$(BIN)/python -m tests.fault_campaign --runs $(RUNS) --out $(DEMO)/faults.json

# A thousand micro-blocks through one driver: is it as small and fast at the end?
soak: setup
	$(BIN)/python -m tests.soak --blocks $(BLOCKS) --out $(DEMO)/soak

bench: setup
	mkdir -p $(DEMO)
	for name in trial_vocabulary trials_together prepare_speed; do \
		$(BIN)/python benchmarks/$$name.py --out $(DEMO)/$$name.json || exit 1; \
	done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# docs/configuration.md from the config classes, then the site in build/site.
docs: setup
	PYTHONPATH=. $(BIN)/python docs/generate_configuration.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict -f docs/site/mkdocs.yml

clean:
	rm -rf build *.egg-info $(DEMO)

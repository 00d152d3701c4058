# Each target sets up what it needs: a virtual environment with the exact versions of requirements.lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
STATE  ?= $(if $(BROKER_STATE_DIR),$(BROKER_STATE_DIR),.state)
PORT   ?= $(if $(BROKER_PORT),$(BROKER_PORT),8787)

.PHONY: run test check fmt bench endurance lock clean docs
.DEFAULT_GOAL := run

$(STAMP): requirements.lock pyproject.toml deploy/setup-venv
	deploy/setup-venv $(PYTHON) $(VENV)
	touch $(STAMP)

run: $(STAMP) ## a broker on loopback with an embedded Valkey and warm kernels
	exec $(BIN)/broker serve --isolation standard --state-dir $(STATE) --port $(PORT)

test: $(STAMP) ## every test
	$(BIN)/pytest -n 3 --dist worksteal $(ARGS)

check: $(STAMP) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layers.py

fmt: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## ratios against the peers, measured side by side in one run
	$(BIN)/python -m tests.bench $(ARGS)

endurance: $(STAMP) ## a soak of ten minutes, an overload, 100,000 hostile frames, 10,000 opens and closes
	$(BIN)/python -m tests.endurance $(ARGS)

docs: $(STAMP) ## the generated parts of README.md and deploy/docs
	$(BIN)/python deploy/docs/generate.py --write

lock: $(STAMP) ## resolve the newest versions that pyproject.toml allows
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --extra data --extra dev \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate \
	  --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis bench-results

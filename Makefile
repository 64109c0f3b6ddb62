# Two commands: `make run` (the main job on this machine) and `make test`. The rest is slower or rarer.
PYTHON ?= python3
BIN := .venv/bin
ENGINES ?= sim
POLICY ?= learned
RUN_ARGS ?=
FUZZ_S ?= 600
SOAK_S ?= 3600
# Typed one at a time: each imports from its own folder, and several have a conftest.py.
SUITES := $(sort $(dir $(wildcard e2e/*/*.py))) $(addprefix tests/,bench conformance crds engines exchange handoff kube learning policies pool requests results routing server shared simulator stages telemetry wire)

.DEFAULT_GOAL := help
.PHONY: help run test lint unit e2e conformance e2e-vllm e2e-handoff e2e-report e2e-ranking e2e-wire e2e-replicas soak e2e-kind chart-test manifests bench bench-short bench-peers results results-learned results-stages fuzz proto docs clean

help: ## What can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.venv/.done: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "picker needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[envoy,report,dev]'
	touch $@

run: .venv/.done ## Envoy, picker, engines, a trace, a live table (ENGINES=vllm POLICY=... RUN_ARGS=...)
	@$(BIN)/picker up --engine $(ENGINES) --policy $(POLICY) $(RUN_ARGS)

test: lint unit e2e bench-short ## Lint, types, every quick test, end to end through real Envoy, a short bench

lint: .venv/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for suite in $(SUITES); do $(BIN)/mypy $$suite || exit 1; done

unit: .venv/.done
	$(BIN)/pytest tests -n auto --dist loadfile

e2e: .venv/.done ## The request path and its faults, with real Envoy and simulated engines
	$(BIN)/pytest e2e/local -n 2 --dist loadfile

conformance: .venv/.done ## picker against every rule of the endpoint picker protocol, on the wire and through real Envoy
	$(BIN)/picker conformance --envoy

e2e-vllm: .venv/.done ## The same with real vLLM on CPU: exact prefix hits (installs about 3 GB)
	$(BIN)/pytest e2e/vllm

e2e-handoff: .venv/.done ## 200 streams of real vLLM, moved at random tokens
	HANDOFF_PROMPTS=200 $(BIN)/pytest -s e2e/vllm/test_handoff.py

e2e-report: .venv/.done ## A replay's report in a real browser (needs Chromium on this machine)
	$(BIN)/pytest e2e/report

e2e-ranking: .venv/.done ## Does the simulator rank policies as real Envoy does? Prints both sides (ten minutes)
	$(BIN)/pytest -s e2e/ranking

e2e-wire: .venv/.done ## The wire core under curl and h2load (needs both on this machine)
	$(BIN)/pytest e2e/wire

e2e-replicas: .venv/.done ## Two pickers that tell each other through a real Redis or Valkey (needs redis-server on this machine)
	$(BIN)/pytest e2e/replicas

soak: .venv/.done ## Does a picker hold more the longer it serves? (SOAK_S=3600 seconds, half of them by each response path)
	SOAK_S=$(SOAK_S) $(BIN)/pytest -s e2e/soak

fuzz: .venv/.done ## Coverage-guided fuzzing of the wire core (FUZZ_S=600 seconds; keeps its corpus in .cache)
	$(BIN)/pip install -q -e '.[fuzz]'
	mkdir -p .cache/fuzz/wire
	$(BIN)/python tests/wire/fuzz_wire.py -max_total_time=$(FUZZ_S) -max_len=1500 -len_control=0 .cache/fuzz/wire

e2e-kind: .venv/.done ## A kind cluster with gateway, engines and picker, and the suite in it (needs Docker and kind)
	bash e2e/kind/up.sh
	bash e2e/kind/suite.sh

chart-test: .venv/.done ## The chart and the custom resources, by real helm and kubectl, against an API server (fetches both)
	$(BIN)/pytest e2e/charts

manifests: .venv/.done ## manifests/picker.yaml, rendered from the chart
	bash e2e/tools/install.sh
	$(BIN)/python e2e/charts/plain_manifest.py > manifests/picker.yaml

bench: .venv/.done bench-peers ## CPU per request, per chunk, per pick, beside peers; writes bench/results.json
	$(BIN)/python -m bench.run

bench-short: .venv/.done
	$(BIN)/python -m bench.run --short

bench-peers: .venv/.done
	bash bench/install_peers.sh

results: .venv/.done ## Every policy on every trace and pool, replayed: what is missing of hours; docs/results.md
	$(BIN)/python -m results.run
	$(BIN)/python -m results.page

results-learned: .venv/.done ## The learned policy on loads and pools that change, and part by part; docs/learning-results.md
	$(BIN)/python -m results.shifts_run
	$(BIN)/python -m results.shifts_page

results-stages: .venv/.done ## Length stages and running requests that move, on long contexts; docs/stage-results.md
	$(BIN)/python -m results.stages_run
	$(BIN)/python -m results.stages_page

proto: .venv/.done ## Compile proto/ into picker/proto/
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --pyi_out=. proto/picker/proto/*.proto

docs: .venv/.done ## Pages that are generated
	$(BIN)/python -m picker.policies.doc > docs/policies.md
	$(BIN)/python e2e/charts/values_table.py

clean: ## Everything that was built or downloaded
	rm -rf .venv .cache build *.egg-info

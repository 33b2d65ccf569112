# make run     search, compare and register, in an environment of its own (STUDY=binary|multiclass)
# make install an environment of its own in .venv, with the program and nothing to develop it
# make test    the whole test suite
# make check   formatting, lint, types, import layers
# make bench   all figures of docs/speed.md, peers included (DATA=…, WEIGHTS=…); two hours
# make faults  kills, servers that go away, many workers: the figures of docs/reliability.md; half an hour
# make lock    resolve the pins anew (needs uv)

PYTHON ?= python3
STUDY ?= multiclass
RUN := .venv/bin/python
PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet -c requirements.lock

.PHONY: install run test check format bench faults lock clean

install: .venv/run.stamp

run: .venv/run.stamp
	$(RUN) -m breakhis_search run --study $(STUDY)

# By file: the tests of one share what is slow to make, and few processes import TensorFlow. One
# process more than cores: tests wait for the servers and searches that they start.
test: .venv/dev.stamp
	$(RUN) -m pytest --dist loadfile --numprocesses $$($(RUN) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')

check: .venv/dev.stamp
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/dev.stamp
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(f"Python 3.11 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; to do: make PYTHON=python3.12 …" if not (3, 11) <= v <= (3, 13) else 0)'
	@echo "making .venv and installing into it: some minutes, and more than a gigabyte to download"
	@$(PYTHON) -m venv .venv

.venv/run.stamp: .venv/bin/python pyproject.toml requirements.lock
	$(PIP) --editable .
	touch $@

.venv/dev.stamp: .venv/bin/python pyproject.toml requirements.lock
	$(PIP) --editable '.[dev]'
	touch $@ .venv/run.stamp

bench: .venv/dev.stamp
	$(RUN) benchmarks/startup.py
	$(RUN) benchmarks/training_rate.py --architecture mobilenet --height 160 --width 240 --images 320 --out benchmarks/results/training_rate_cpu.json
	$(RUN) benchmarks/reference_searches.py r1 --data $(DATA) --weights $(WEIGHTS)
	$(RUN) benchmarks/reference_searches.py r1 --data $(DATA) --weights $(WEIGHTS) --trials 256 --peer-trials 2 --peers keras_tuner optuna_untracked
	$(RUN) benchmarks/reference_searches.py r2 --data $(DATA) --weights $(WEIGHTS) --peer-trials 16
	$(RUN) benchmarks/reference_searches.py r2 --data $(DATA) --weights $(WEIGHTS) --repetitions 1 --peer-trials 0 --server
	$(RUN) benchmarks/reference_searches.py r2 --data $(DATA) --weights $(WEIGHTS) --repetitions 1 --peer-trials 0 --trials 64
	$(RUN) benchmarks/reference_searches.py r3
	$(RUN) benchmarks/long_study.py --data $(DATA) --weights $(WEIGHTS)
	$(RUN) benchmarks/summary.py

# What only has to come out right runs in three lanes of about one length (that of Ray waits most of
# the time, for leases of lost nodes to run out); what is timed then runs alone.
faults: .venv/dev.stamp
	rm -f benchmarks/results/faults_kills.json benchmarks/results/faults_machine.json
	short=0; store=$$(mktemp -d); \
	measure() { $(RUN) -m "$$@" || short=1; }; \
	kills() { measure tests.faults.kill_campaign --out benchmarks/results/faults_kills.json "$$@"; }; \
	machine() { measure tests.faults.machine_faults --trials 8 --out benchmarks/results/faults_machine.json "$$@"; }; \
	( machine database disk crashes; kills --kills 25 --trials 8 --workers 1 --seed 3; exit $$short ) & machines=$$!; \
	( machine node driver; kills --kills 20 --trials 8 --workers 1 --postgres --seed 6; exit $$short ) & nodes=$$!; \
	trap 'kill $$machines $$nodes; exit 130' INT TERM; \
	kills --kills 35 --trials 12 --workers 3 --postgres --seed 4; \
	kills --kills 25 --trials 10 --workers 3 --seed 5; \
	measure tests.faults.long_store --begin $$store; \
	FAULT_EXAMPLES=1000 measure pytest -q tests/faults/test_generated_input.py; \
	wait $$machines || short=1; \
	wait $$nodes || short=1; \
	measure tests.faults.server_faults --out benchmarks/results/faults_server.json; \
	measure tests.faults.long_store --begun $$store --out benchmarks/results/faults_long_store.json; \
	measure tests.faults.scale --out benchmarks/results/faults_scale.json; \
	exit $$short

lock:
	uv pip compile --universal --python-version 3.11 --extra dev --extra postgres --extra gpu --extra ray --extra dashboard --no-header --no-annotate --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv build *.egg-info

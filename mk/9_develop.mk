##@ Development
.PHONY: test lint format bench

# Two processes of one thread each; a file's tests stay together, since they share what its fixtures have made, and in
# the order of the files, since the longest ones would otherwise come last: they have few tests.
test: $(develop)  ## all tests
	OMP_NUM_THREADS=1 $(python) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(develop)  ## ruff and mypy
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

format: $(develop)  ## let ruff format the code
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

# The libraries that the benchmarks compare with stay in a folder of their own; nothing else sees them.
bench_data := $(if $(wildcard $(data)/splits.csv),$(data),demo/data)
bench_maps := $(runs)/$(firstword $(members))/oof.npz

bench: benchmarks/peers/installed.txt $(bench_data)/splits.csv  ## speed against other libraries; ROWS='metric crops ...'
	PYTHONPATH="$$PYTHONPATH:benchmarks/peers" OMP_NUM_THREADS=1 $(python) benchmarks/run.py --data $(bench_data) \
	  $(if $(filter-out auto,$(device)),--device $(device)) $(if $(rows),--rows $(rows)) \
	  $(if $(wildcard $(bench_maps)),--maps $(bench_maps))

benchmarks/peers/installed.txt: benchmarks/requirements.txt | $(ready)
	$(python) -m pip install --quiet --no-deps --upgrade --target benchmarks/peers --requirement benchmarks/requirements.txt
	cp benchmarks/requirements.txt benchmarks/peers/installed.txt

ifeq ($(bench_data),demo/data)
ifneq ($(data),demo/data)
demo/data/splits.csv: demo/archive/stage1_solution.csv
	@$(MAKE) --no-print-directory $(demo_settings) demo/data/splits.csv
endif
endif

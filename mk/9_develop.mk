##@ Development
.PHONY: test test-quick torture lint format bench licences sbom audit locks

# Two processes of one thread each; a file's tests stay together, since they share what its fixtures have made, and in
# the order of the files, since the longest ones would otherwise come last: they have few tests.
test: $(develop)  ## all tests
	OMP_NUM_THREADS=1 $(python) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# For every change: without the files that train, start many processes or open a browser (SLOW in tests/conftest.py).
test-quick: $(develop)  ## all but the slow files of tests
	OMP_NUM_THREADS=1 $(python) -m pytest -q --quick --numprocesses 2 --dist loadfile --no-loadscope-reorder

# docs/reliability.md says what is attacked and has the last figures
torture: $(develop)  ## kill a small demo KILLS= times, read CASES= broken files; takes an hour
	PYTHONPATH="$$PYTHONPATH:tests" OMP_NUM_THREADS=1 $(python) -m torture.fuzz --cases $(cases)
	PYTHONPATH="$$PYTHONPATH:tests" OMP_NUM_THREADS=1 $(python) -m torture.kills --kills $(kills) --jobs 2

lint: $(develop)  ## ruff and mypy
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

format: $(develop)  ## let ruff format the code
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

licences: $(supply)  ## the licence of every installed package
	@$(python) -m piplicenses --order license --with-urls

sbom: $(supply)  ## sbom.json: the pinned dependencies with their hashes, as CycloneDX
	$(python) -m cyclonedx_py requirements locks/base.txt --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json

# pip-audit ends with success where it could check nothing; --strict makes that an error.
audit: $(supply)  ## known vulnerabilities of the pinned packages, by the data of PyPI
	@said=$$($(python) -m pip_audit --strict --disable-pip --require-hashes --progress-spinner off \
	  --requirement locks/base.txt --requirement locks/cuda.txt 2>&1) && code=0 || code=$$?; printf '%s\n' "$$said" | tail -n 40; \
	case "$$code $$said" in \
	  "0 "*) ;; \
	  *"could not be audited"*|*"onnection"*) \
	    echo "error: PyPI's data on vulnerabilities cannot be reached from here, so not all packages were checked" >&2; exit 1;; \
	  *) exit 1;; \
	esac

locks: $(supply)  ## write locks/ again after a change of requirements.txt or constraints.txt
	$(python) mk/write_locks.py

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

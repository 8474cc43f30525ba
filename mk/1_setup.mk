##@ Set-up
# Targets without a program of their own are packages of .venv, unless PYTHON= names a Python that has them.

.PHONY: setup
setup: $(ready)  ## .venv with the pinned requirements, each file checked by its hash

# The packages of a file of locks/, which names all of them: nothing else is fetched, and no file of another hash.
install := .venv/bin/python -m pip install --quiet --no-deps --require-hashes --requirement
# What is installed now, in a file that is there when all is.
freeze = .venv/bin/python -m pip freeze --exclude-editable > $@.$$$$ && mv $@.$$$$ $@

# A .venv that was left half made, without pip, is made again; a failed installation does not block the next try.
# A wheel of torch that lies on this machine, where pip's settings say so (find-links), comes first, as a CPU build that
# was installed by hand does. Only a torch that needs them gets NVIDIA's libraries.
.venv/installed.txt: requirements.txt locks/base.txt locks/cuda.txt
	$(say) "setup    .venv: the packages of locks/; some minutes, and more where PyTorch comes with CUDA"
	$(quiet).venv/bin/python -m pip --version >/dev/null 2>&1 || $(base_python) -m venv --clear .venv || \
	  { rm -rf .venv; echo "error: no .venv could be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@.venv/bin/python -m pip install --quiet --no-deps --no-index "$$(grep '^torch==' requirements.txt)" >/dev/null 2>&1 || true
	$(quiet)$(install) locks/base.txt
	$(quiet)! grep -qs '^Requires-Dist: nvidia' .venv/lib/python*/site-packages/torch-*.dist-info/METADATA || \
	  $(install) locks/cuda.txt
	$(quiet).venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(quiet)$(freeze)

.venv/publishing.txt: .venv/installed.txt locks/publishing.txt
	$(quiet)$(install) locks/publishing.txt
	$(quiet)$(freeze)

.venv/development.txt: .venv/publishing.txt locks/development.txt
	$(quiet)$(install) locks/development.txt
	$(quiet)$(freeze)

.venv/supply.txt: .venv/installed.txt locks/supply.txt
	$(quiet)$(install) locks/supply.txt
	$(quiet)$(freeze)

##@ Set-up
# Targets without a program of their own are packages of .venv, unless PYTHON= names a Python that has them.

.PHONY: setup
setup: $(ready)  ## .venv with the pinned requirements

# A .venv that was left half made, without pip, is made again; a failed installation does not block the next try.
.venv/installed.txt: requirements.txt
	$(say) "setup    .venv: the packages of requirements.txt; some minutes, and more where PyTorch comes with CUDA"
	$(quiet).venv/bin/python -m pip --version >/dev/null 2>&1 || $(base_python) -m venv --clear .venv || \
	  { rm -rf .venv; echo "error: no .venv could be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(quiet).venv/bin/python -m pip install --quiet --requirement requirements.txt
	$(quiet).venv/bin/python -m pip install --quiet --no-deps --editable .
	$(quiet).venv/bin/python -m pip freeze --exclude-editable > $@.$$$$ && mv $@.$$$$ $@

.venv/development.txt: .venv/installed.txt pyproject.toml constraints.txt
	$(quiet).venv/bin/python -m pip install --quiet --constraint requirements.txt --constraint constraints.txt --editable '.[dev]'
	$(quiet).venv/bin/python -m pip freeze --exclude-editable > $@.$$$$ && mv $@.$$$$ $@

.venv/publishing.txt: .venv/installed.txt pyproject.toml constraints.txt
	$(quiet).venv/bin/python -m pip install --quiet --constraint requirements.txt --constraint constraints.txt --editable '.[publish]'
	$(quiet).venv/bin/python -m pip freeze --exclude-editable > $@.$$$$ && mv $@.$$$$ $@

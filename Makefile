# Two commands run the project: `make demo` and `make test`. Both install into .venv first if need be.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test quick install clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,nvflare,privacy]'
	touch $@

demo: install
	$(BIN)/polyhead demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadscope --no-loadscope-reorder --ignore tests/flare
	# Real processes that wait for each other: alone on the machine.
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/flare

# What is done after every change: neither what takes more than a few seconds, nor servers and sites.
quick: install
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadscope --no-loadscope-reorder -m "not slow" --ignore tests/flare

clean:
	rm -rf .venv demo

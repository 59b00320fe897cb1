# Needs python3 (3.11 or newer) and make. Everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-slow check format bench clean

help:
	@echo "make demo       the main job on sample_tiles/, into demo-out/"
	@echo "make test       every test that needs no GPU"
	@echo "make test-slow  the long ones too"
	@echo "make check      ruff, mypy, import-linter, codespell"
	@echo "make bench      benchmarks (minutes to hours)"

# The stamp holds the install; a change of dependencies makes it anew.
.venv/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@# The validator of fields wants older versions of what it does not use here, so it comes without them.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps fiboa-cli vecorel-cli
	@touch $@

demo: .venv/.installed
	@for scene in s2_farmland rgb_farmland_1m; do \
		echo; echo "geoseg run sample_tiles/$$scene.tif -o demo-out/$$scene --overwrite --format gpkg,shp,parquet"; \
		$(BIN)/python -m geoseg run sample_tiles/$$scene.tif -o demo-out/$$scene --overwrite --format gpkg,shp,parquet || exit $$?; \
		$(BIN)/python -m geoseg evaluate demo-out/$$scene/fields.gpkg sample_tiles/$${scene}_truth.gpkg || exit $$?; \
	done
	@echo; echo "Look at demo-out/*/preview.png, or open demo-out/*/fields.gpkg in a GIS."

test: .venv/.installed
	$(BIN)/python -m pytest -m 'not gpu and not slow'

test-slow: .venv/.installed
	$(BIN)/python -m pytest -m 'not gpu' --timeout=3600

check: .venv/.installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	$(BIN)/python -m codespell_lib

format: .venv/.installed
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: .venv/.installed
	@for name in limit instances end_to_end; do \
		echo "benchmarks/$$name.py"; \
		$(BIN)/python benchmarks/$$name.py --json benchmarks/results/$$name.json || exit $$?; \
	done

clean:
	rm -rf .venv demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

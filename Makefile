# make setup, fast, test, test-wide, test-all, matrix, shap-tests, packages, lint, demo, bench, studies, gallery, notebooks, docs, tex, zoo, forecasting, gate. Choose another interpreter with make setup PYTHON=python3.12.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
FORECASTING := .venv-forecasting/installed

.PHONY: setup fast test test-wide test-all matrix packages shap-tests lint demo bench gate studies gallery notebooks docs tex zoo forecasting forecasting-notebooks

setup: $(INSTALLED)

# torch goes first and alone: so pip takes the build that its own configuration prefers (CPU only, say). Triton, which a
# CPU's torch does without, stays in a folder that only its tests read: TensorFlow and it crash in one process.
$(INSTALLED): pyproject.toml constraints-dev.txt
	@echo "setting up .venv: some 2 GB of packages, a few minutes once"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints-dev.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --constraint constraints-dev.txt --target .venv/triton triton
	touch $@

# Two processes with one thread each; a file's tests run in one of them, so that what they share is made once. conftest.py
# puts the files in order, those first that take long.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Every case once in both engines, and a test of each package; only the files that have such tests are read.
fast: setup
	$(PYTEST) -q -m fast $$(grep -rl 'mark\.fast' tests --include='test_*.py')

test: setup
	$(PYTEST) -m "not long and not wide"

# The same again in other precisions, sizes, backends and programs, before a release.
test-wide: setup
	$(PYTEST) -m "wide and not long"

# All, those too that take minutes: all models in both engines against the oracles, runs that are killed a hundred times.
test-all: setup
	$(PYTEST)

# shap's own tests of its DeepExplainer, with ours in its place; a part of make test.
shap-tests: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -v tests/compat/test_shap_suite.py

# The wheel with the oldest, the newest and other versions, one environment after the other, removed afterwards: noxfile.py.
# Needs Python 3.10, 3.12 and 3.13. All of it: an hour, 10 GB on disk at a time. Some of it: make matrix ONLY="newest oldest-keras"
ONLY :=
matrix: setup
	$(BIN)/nox $(if $(ONLY),-s $(ONLY))

# Models of published libraries, in an environment of their own that takes what .venv has; docs/supported-models.md. A
# quarter of an hour, and the network.
SITE := import sysconfig; print(sysconfig.get_path("purelib"))
.venv-zoo/installed: $(INSTALLED) tests/zoo/requirements.txt
	$(PYTHON) -m venv .venv-zoo
	.venv-zoo/bin/pip install --quiet --no-deps --requirement tests/zoo/requirements.txt
	$(BIN)/python -c '$(SITE)' > $$(.venv-zoo/bin/python -c '$(SITE)')/beside.pth
	touch $@

zoo: .venv-zoo/installed
	PYTHONPATH=src OMP_NUM_THREADS=1 .venv-zoo/bin/python -W ignore tests/zoo/run.py

# The wheel with each extra by itself, in a new environment without constraints, so with the newest versions: what a new user
# gets. Half an hour, 8 GB on disk at a time, and the network. Some of it: make packages EXTRAS="torch keras"
EXTRAS :=
packages: setup
	$(BIN)/python -m build --outdir build/packages
	$(BIN)/python tools/try_packages.py build/packages $(EXTRAS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

demo: setup
	@echo "training an LSTM on 270 recordings and explaining 370 others: half a minute"
	$(BIN)/python -m deepshap.datasets.demo

# Time and memory beside the peers, the pictures and tables made of them. A quarter of an hour; leave the machine alone.
bench: setup $(FORECASTING)
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/gradients.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/gradients_keras.py
	.venv-forecasting/bin/python benchmarks/forecasters.py
	$(BIN)/python benchmarks/draw.py

# Time and memory of eight models on the commit BASE and on the working tree, side by side. Five minutes; leave the machine alone.
gate: setup
	git worktree add --force --detach build/gate $(BASE)
	$(BIN)/python benchmarks/gate.py build/gate/src --base-name $(BASE) --write
	git worktree remove --force build/gate

# The other figures: time against accuracy, what is found where the truth is known, whole data sets. Half an hour.
studies: setup
	$(BIN)/pip install --quiet --constraint constraints-dev.txt shapiq
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/dial.py
	$(BIN)/python benchmarks/ground_truth.py
	$(BIN)/python benchmarks/draw.py
	$(BIN)/python benchmarks/dataset.py

# The pictures of docs/plots.md.
gallery: setup
	$(BIN)/python examples/gallery.py

# Forecasting libraries and what is tested with them, in an environment of their own: .venv-forecasting. torch goes first and
# alone, and is held at that build; most tests are of seconds, the notebooks run too.
$(FORECASTING): pyproject.toml constraints-forecasting.txt
	@echo "setting up .venv-forecasting: some 2 GB of packages, a few minutes once"
	$(PYTHON) -m venv .venv-forecasting
	.venv-forecasting/bin/pip install --quiet torch==2.13.0
	.venv-forecasting/bin/pip install --quiet --constraint constraints-forecasting.txt --editable '.[forecasting,notebooks]' captum pytest
	touch $@

forecasting: $(FORECASTING)
	OMP_NUM_THREADS=1 .venv-forecasting/bin/pytest -q -W default tests/forecasting_libraries

# Writes the notebooks and pages of the forecasting libraries anew.
forecasting-notebooks: $(FORECASTING)
	.venv-forecasting/bin/python notebooks/build.py forecasting

# Runs notebooks/*.py, which become notebooks and pages in docs/notebooks.
notebooks: setup
	$(BIN)/python notebooks/build.py

# The lists of operations, then the site in build/site; what would be a warning is an error.
docs: setup
	$(BIN)/python tools/torch_operations.py > docs/supported-operations.md
	$(BIN)/python tools/tensorflow_operations.py > docs/supported-keras.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo the site is in build/site/index.html

# The derivations as build/tex/*.pdf; twice, for the references. Any LaTeX will do: make tex LATEX=xelatex.
LATEX ?= pdflatex
tex:
	mkdir -p build/tex
	for run in 1 2; do \
		$(LATEX) -interaction=nonstopmode -halt-on-error -output-directory=build/tex docs/tex/lstm_shap_generic.tex || exit 1; \
	done

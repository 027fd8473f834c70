"""Run the notebooks and render them for the documentation.

`python notebooks/build.py` reads the sources beside it (cells begin with `# %%`), runs them, and writes each as a notebook with
its outputs, notebooks/NAME.ipynb, and as a page, docs/notebooks/NAME.md. `python notebooks/build.py forecasting` does so with
those of the forecasting libraries, in their environment (`make forecasting-notebooks`).
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

HERE = Path(__file__).parent
PAGES = HERE.parent / "docs" / "notebooks"
NAMES = ("speakers", "weather", "weather_keras")
FORECASTING = ("darts_weather", "neuralforecast_weather")
MARK = re.compile(r"^# %%(.*)\n", re.MULTILINE)
LOG = re.compile(r"[IWE]\d{4} \d\d:|WARNING: All log messages before absl")


def main() -> None:
    """Run and write all notebooks."""
    for name in FORECASTING if sys.argv[1:] == ["forecasting"] else NAMES:
        notebook = run(read(HERE / f"{name}.py"))
        shrink(notebook)
        nbformat.write(notebook, HERE / f"{name}.ipynb")
        render(notebook, name)
        print(f"notebooks/{name}.ipynb and docs/notebooks/{name}.md are written")


def read(source: Path) -> NotebookNode:
    """Make a notebook of a source, without outputs."""
    _, *parts = MARK.split(source.read_text(encoding="utf-8"))
    cells = []
    for number, (kind, text) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        if "markdown" in kind:
            cells.append(new_markdown_cell(re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE), id=f"cell-{number}"))
        else:
            cells.append(new_code_cell(text.strip(), id=f"cell-{number}"))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def run(notebook: NotebookNode, timeout: int = 300) -> NotebookNode:
    """Run all cells; the first error ends it."""
    quiet = {
        **os.environ,
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm wants ipywidgets, which nothing here needs
        "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow reports processors and missing GPUs
    }
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False).execute(env=quiet)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not _is_log(output)]
    return notebook


def _is_log(output: NotebookNode) -> bool:
    """Return whether an output consists of what TensorFlow logs while it is imported, whatever its log level."""
    lines = output.text.splitlines() if output.get("name") == "stderr" else [""]
    return all(LOG.match(line) for line in lines)


def shrink(notebook: NotebookNode) -> None:
    """Leave 256 colours to each picture, a third of its size."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        if "image/png" in output.get("data", {}):
            small = io.BytesIO()
            with Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))) as picture:
                reduced = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)
            reduced.save(small, "png", optimize=True)
            output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


def render(notebook: NotebookNode, name: str) -> None:
    """Write a notebook as a page with its pictures beside it."""
    files = PAGES / f"{name}_files"
    files.mkdir(parents=True, exist_ok=True)
    for old in files.iterdir():
        old.unlink()
    page, resources = MarkdownExporter().from_notebook_node(notebook, {"output_files_dir": files.name})
    page = re.sub(r"<style scoped>.*?</style>\n*", "", page, flags=re.DOTALL)  # of tables; pages would show it as text
    (PAGES / f"{name}.md").write_text(page.strip() + "\n", encoding="utf-8")
    for path, content in resources["outputs"].items():
        (PAGES / path).write_bytes(content)


if __name__ == "__main__":
    main()

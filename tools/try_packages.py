"""Install the wheel with each extra, in a new environment and without constraints, and use it as a new user would.

`python tools/try_packages.py FOLDER [EXTRA ...]`, with the folder that `python -m build` wrote into; the sdist is installed once,
without extras. `python tools/try_packages.py --readme` runs the README's example in the environment that it is called in.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FRAMEWORK = str(ROOT / "tests" / "support" / "one_framework.py")
EXPLANATION = """
import numpy as np, deepshap
explanation = deepshap.Explanation(np.ones((3, 4, 2)), np.zeros(3), np.ones((3, 4, 2)), feature_names=["a", "b"])
"""
LOOK_AT_IT = """
import matplotlib
matplotlib.use("Agg")
deepshap.plots.heatmap(explanation[0].output(2)).figure.savefig("heatmap.png")
explanation.report("why.html")
explanation.save("why.parquet")
assert (deepshap.load("why.parquet").values == explanation.values).all()
"""
PROGRAMS = {  # arguments of Python, by the extra that they need
    "": ["-c", "import deepshap; print(len(deepshap.datasets.seattle_weather()))"],
    "torch": [FRAMEWORK, "torch", "tensorflow", "keras"],
    "torch,plots,tables,report": [__file__, "--readme"],  # what the README says to install
    "keras": [FRAMEWORK, "keras", "torch"],
    "plots": ["-c", EXPLANATION + "deepshap.plots.heatmap(explanation[0]).figure.savefig('heatmap.png')"],
    "tables": [
        "-c",
        EXPLANATION + "explanation.save('why.parquet'); print(deepshap.load('why.parquet').to_dataframe())",
    ],
    "report": ["-c", EXPLANATION + "print(explanation.report('why.html'))"],
    "dataset": [
        "-c",
        "import filelock, loky, pandas; from deepshap.dataset import run, workers\n"
        "from deepshap.dataset.sources import open_source\n"
        "pandas.DataFrame({'a': [1.0, 2.0]}).to_parquet('x.parquet'); assert open_source('x.parquet').rows == 2",
    ],
    "ray": ["-c", "import ray.data, deepshap; print(deepshap.ray.explain.__name__)"],
    "demo": ["-m", "deepshap.datasets.demo", "--utterances", "5", "--background", "5"],
}


def run_readme() -> None:
    """Run the README's example, and make one picture, one report and one saved file of what it returns."""
    example = re.search(
        r"```python\n(import torch\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert example is not None, "the README has no example"
    exec(example[1] + LOOK_AT_IT, {})


def main(folder: str, *extras: str) -> None:
    """Try them, and stop at the first that fails."""
    if folder == "--readme":
        run_readme()
        return
    packages = sorted(Path(folder).glob("deepshap-*.whl")) + sorted(Path(folder).glob("deepshap-*.tar.gz"))
    if len(packages) != 2:
        sys.exit(f"there must be one wheel and one sdist in {folder}, not {[path.name for path in packages]}.")
    wheel, sdist = packages
    for package, extra in [*((wheel, extra) for extra in extras or PROGRAMS), *([] if extras else [(sdist, "")])]:
        attempt(package.resolve(), extra)
        print(f"{package.name}[{extra}] installs and runs", flush=True)


def attempt(package: Path, extra: str) -> None:
    """Install a package with one extra into a new environment, away from the sources, and run what it is for."""
    with tempfile.TemporaryDirectory() as place:
        venv.create(Path(place) / "venv", with_pip=True)
        python = str(Path(place) / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python")
        install = [python, "-m", "pip", "install", "--quiet"]
        if extra.startswith(
            ("torch", "demo")
        ):  # first and alone: pip takes the build that its own configuration prefers
            subprocess.run([python, "-m", "pip", "install", "--quiet", "torch"], check=True)
        subprocess.run([*install, f"{package}[{extra}]" if extra else str(package)], check=True)
        subprocess.run([python, "-m", "pip", "list", "--format=freeze"], check=True, cwd=place)
        subprocess.run([python, *PROGRAMS[extra]], check=True, cwd=place)
        subprocess.run([python, "-m", "deepshap", "--version"], check=True, cwd=place)


if __name__ == "__main__":
    main(*sys.argv[1:])

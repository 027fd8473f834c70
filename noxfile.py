"""The oldest and the newest versions that pyproject.toml claims: ``make matrix``, or ``nox -s oldest newest``.

Requirements behind ``--`` replace those of the same name, and ``--force-python`` takes another interpreter:
``nox -s oldest --force-python 3.11 -- torch==2.13.0``. What was run, and what came of it: docs/versions.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

TORCH = {"oldest": ["torch==2.4.0"], "newest": ["torch"]}
TENSORFLOW = {"oldest": ["tensorflow==2.16.2", "keras==3.0.5"], "newest": ["tensorflow", "keras"]}
BOTH = {"oldest": ["numpy==1.26.4", "shap==0.46.0", "pyarrow==15.0.2"], "newest": []}
TOOLS = ["pytest>=8", "pytest-xdist>=3.6", "filelock>=3.12", "grimp>=3", "safetensors>=0.4"]
PYTHON = {"oldest": "3.10", "newest": "3.13"}

nox.options.reuse_existing_virtualenvs = True


def install(session: nox.Session, requirements: list[str]) -> None:
    """Install requirements, within the bounds of deepshap. torch goes first, so that pip takes the build that it prefers."""
    given = {name_of(requirement): requirement for requirement in session.posargs}
    chosen = [given.get(name_of(requirement), requirement) for requirement in requirements]
    for requirement in chosen:
        if name_of(requirement) == "torch":
            session.install(requirement)
    session.install(*chosen, ".[plots,tables,report]")


def name_of(requirement: str) -> str:
    """The package of a requirement."""
    return re.split(r"[=<>!~]", requirement, maxsplit=1)[0]


def suite(session: nox.Session, age: str) -> None:
    """What ``make fast`` runs, with both frameworks."""
    install(session, TORCH[age] + TENSORFLOW[age] + BOTH[age] + TOOLS)
    files = [str(path) for path in Path("tests").rglob("test_*.py") if "mark.fast" in path.read_text(encoding="utf-8")]
    session.run("pytest", "-q", "-W", "default", "-n", "2", "-m", "fast", *files, env={"OMP_NUM_THREADS": "1"})


def alone(session: nox.Session, age: str, framework: str) -> None:
    """A user's program with one framework, where the other is not installed."""
    install(session, (TORCH if framework == "torch" else TENSORFLOW)[age] + BOTH[age])
    absent = ["tensorflow", "keras"] if framework == "torch" else ["torch"]
    session.run("python", "tests/support/one_framework.py", framework, *absent)


for age, python in PYTHON.items():
    nox.session(lambda session, age=age: suite(session, age), name=age, python=python)
    for framework in ("torch", "keras"):
        nox.session(
            lambda session, age=age, framework=framework: alone(session, age, framework),
            name=f"{age}-{framework}",
            python=python,
        )

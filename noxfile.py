"""The oldest, the newest and other versions that pyproject.toml claims: ``make matrix``, or ``make matrix ONLY="oldest newest"``.

Each environment is made, used and removed before the next one. docs/versions.md has what was run, and what came of it.
Requirements behind ``--`` replace those of the same name: ``nox -s oldest -- torch==2.5.0``.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import nox

ROOT = Path(__file__).parent
TOOLS = ["pytest>=8", "pytest-xdist>=3.6", "filelock>=3.12", "grimp>=3", "loky>=3.4", "safetensors>=0.4"]
OLD = ["numpy==1.26.4", "shap==0.46.0", "pyarrow==16.1.0"]
OLD_KERAS = ["tensorflow==2.16.2", "keras==3.0.5"]
NEW_KERAS = ["tensorflow", "keras"]


class Environment(NamedTuple):
    """A Python, what is installed beside deepshap, and what that takes: minutes, and GB on disk with CUDA builds of torch."""

    python: str
    requirements: list[str]
    minutes: int
    gigabytes: int


ENVIRONMENTS = {
    "oldest": Environment("3.10", ["torch==2.4.0", *OLD_KERAS, *OLD], 10, 8),
    "newest": Environment("3.13", ["torch", *NEW_KERAS], 12, 9),
    "torch-2.9.1": Environment("3.12", ["torch==2.9.1", *NEW_KERAS], 12, 10),
    "torch-2.14.1": Environment("3.12", ["torch==2.14.1", *NEW_KERAS], 12, 9),
    "oldest-torch": Environment("3.10", ["torch==2.4.0", *OLD], 5, 6),
    "oldest-keras": Environment("3.10", [*OLD_KERAS, *OLD], 3, 3),
    "newest-torch": Environment("3.13", ["torch"], 5, 7),
    "newest-keras": Environment("3.13", NEW_KERAS, 3, 3),
}

nox.options.reuse_existing_virtualenvs = False


def name_of(requirement: str) -> str:
    """Return the package of a requirement."""
    return re.split(r"[=<>!~]", requirement, maxsplit=1)[0]


def check(session: nox.Session, name: str, environment: Environment) -> None:
    """Install the wheel with some versions and use it as a user would; with both frameworks, run what ``make fast`` runs."""
    session.log(
        f"{name}: about {environment.minutes} minutes and {environment.gigabytes} GB on disk, removed afterwards"
    )
    given = {name_of(requirement): requirement for requirement in session.posargs}
    chosen = [given.get(name_of(requirement), requirement) for requirement in environment.requirements]
    frameworks = [f for f, package in (("torch", "torch"), ("keras", "tensorflow")) if package in map(name_of, chosen)]
    try:
        session.install("build")
        wheels = Path(session.create_tmp()) / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        session.run("python", "-m", "build", "--wheel", "--outdir", str(wheels), silent=True)
        (wheel,) = wheels.glob("*.whl")
        for requirement in chosen:  # first and alone, so that pip takes the build that its own configuration prefers
            if name_of(requirement) == "torch":
                session.install(requirement)
        session.install(*chosen, *TOOLS, f"{wheel}[plots,tables,report]")
        session.run("python", "-m", "pip", "list", "--format=freeze")
        absent = {"torch": ["tensorflow", "keras"], "keras": ["torch"]}
        with session.chdir(session.create_tmp()):
            if "torch" in frameworks:
                session.run("python", str(ROOT / "tools" / "try_packages.py"), "--readme")
            for framework in frameworks:
                session.run(
                    "python", str(ROOT / "tests" / "support" / "one_framework.py"), framework, *absent[framework]
                )
        if len(frameworks) == 2:
            files = [p for p in Path("tests").rglob("test_*.py") if "mark.fast" in p.read_text(encoding="utf-8")]
            command = ["pytest", "-q", "-W", "default", "-n", "2", "--dist", "loadfile", "-m", "fast", *map(str, files)]
            session.run(*command, env={"OMP_NUM_THREADS": "1"})
    finally:
        shutil.rmtree(session.virtualenv.location, ignore_errors=True)


for name, environment in ENVIRONMENTS.items():
    nox.session(
        lambda session, name=name, environment=environment: check(session, name, environment),
        name=name,
        python=environment.python,
    )

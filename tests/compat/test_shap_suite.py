"""shap's own tests of its DeepExplainer pass with ours in its place.

The tests come out of the source distribution of the installed version of shap, which pip fetches once into pytest's
cache; none of their code is kept here. Run them alone with: make shap-tests.
"""

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[1] / "support"
SUITE = "tests/explainers/test_deep.py"
NEEDED = ("tests/conftest.py", "tests/explainers/__init__.py", "tests/explainers/conftest.py", SUITE)
NOT_OURS = (
    "test_tf_eager_call",  # shap skips it, and it expects the form of results that shap had before
    "test_tf_deep_imbdb_transformers",  # of a text model that it downloads, without any DeepExplainer
)


def run(*command, **options):
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False, **options)


def fetch(folder: Path, scratch: Path) -> None:
    """Write shap's tests of its DeepExplainer below a folder."""
    release = f"shap=={version('shap')}"
    done = run("pip", "download", "--no-deps", "--no-binary", "shap", "--dest", str(scratch), release)
    assert done.returncode == 0, f"pip could not fetch the sources of {release}:\n{done.stdout}{done.stderr}"
    (package,) = scratch.glob("shap-*.tar.gz")
    with tarfile.open(package) as archive:
        for name in NEEDED:
            source = archive.extractfile(f"{package.name.removesuffix('.tar.gz')}/{name}")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(source.read())


@pytest.fixture
def suite(pytestconfig, tmp_path) -> Path:
    """The folder with shap's tests."""
    folder = Path(pytestconfig.cache.mkdir("shap-sources")) / version("shap")
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        fetch(partial, tmp_path)
        partial.rename(folder)
    return folder


def outcomes(report: Path) -> dict[str, str]:
    """What became of each test, by its name with its parameters."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {
        case.get("name"): next((child.tag for child in case if child.tag != "system-out"), "passed") for case in cases
    }


def test_shaps_own_tests_pass(suite, tmp_path):
    deselected = [f"--deselect={SUITE}::{name}" for name in NOT_OURS]
    options = [
        "-p",
        "shap_in_place",
        "-p",
        "no:cacheprovider",
        f"--rootdir={suite}",
        f"--junitxml={tmp_path / 'report'}",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = run("pytest", *options, *deselected, SUITE, cwd=suite, env={**environment, "PYTHONPATH": str(HERE)})
    assert done.returncode == 0, done.stdout + done.stderr

    found = outcomes(tmp_path / "report")
    assert set(found.values()) <= {"passed", "skipped"}
    skipped = {name for name, outcome in found.items() if outcome == "skipped"}
    assert all("cuda" in name for name in skipped)
    assert not skipped or not torch.cuda.is_available()

    written = set(re.findall(r"^def (test_\w+)", (suite / SUITE).read_text(), re.MULTILINE))
    assert {name.partition("[")[0] for name in found if name not in skipped} == written - set(NOT_OURS)

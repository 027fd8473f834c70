"""The kernels for a GPU, without one: they compute the right numbers under Triton's interpreter, and they compile.

In processes of their own, with Triton from a folder of its own: a process that has imported TensorFlow crashes when it
imports Triton, which torch does wherever it finds it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[2] / "support"
TRITON = Path(sys.prefix) / "triton"  # where ``make setup`` puts it


@pytest.mark.parametrize(
    ("program", "options"),
    [
        pytest.param("triton_interpreted.py", {"TRITON_INTERPRET": "1"}, marks=pytest.mark.wide),
        ("triton_compiled.py", {}),
    ],
)
def test_in_a_process_of_its_own(program, options):
    assert TRITON.is_dir(), "make setup installs it"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", program]
    environment = {**os.environ, **options, "PYTHONPATH": os.pathsep.join([str(TRITON), str(Path(__file__).parent)])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=HERE)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout

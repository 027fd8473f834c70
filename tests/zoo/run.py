"""Run the zoo: every library in a process of its own, the table, docs/supported-models.md."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from case import Finding, examine
from table import MODELS

MARK = "finding: "
LONGEST = 240
OUTCOMES = ("exact", "refused", "wrong", "crashed")
PAGE = Path(__file__).parents[2] / "docs" / "supported-models.md"
HEAD = """# Models of published libraries

`make zoo` writes this page. It builds {models} models of published libraries from their configurations, with random weights,
in an environment of its own, and explains three rows of each against four references: {said}.

The gap is the largest difference between the sums of the attributions and the differences of the model's own outputs,
relative to the outputs. Models run in float64; where the gap is about 1e-8, the model computes with float32 within. Time is the
processor's time of an explanation of one output over that of the framework's own forward pass and gradient of as many rows as
there are pairs, once both are warm, by default and within `frozen()`; for models of Keras, whose gradient TensorFlow has
compiled, only that. Half of those of PyTorch take less than {default:.1f} times a gradient, within `frozen()` {frozen:.1f}, and
half of those of Keras less than {keras:.1f}. Where it says *on all pairs*, as of {pairs}, rows could not be found in all that the
model computes: both sides run on every pair then, where either runs once elsewhere. These models are tiny, so that most of it is
Python: of large ones see the [benchmarks](benchmarks.md).

The table of models is in `tests/zoo/`; its recurrent part runs with every test run."""


def of_library(library: str) -> None:
    """Examine the models of one library, and print what is found."""
    for name, build in MODELS[library].items():
        print(MARK + json.dumps(asdict(examine(library, name, build))), flush=True)


def in_a_process(library: str) -> list[Finding]:
    """As ``of_library``, where a crash of the process takes nothing else along."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, library], capture_output=True, text=True, check=False
    )
    lines = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    found = [Finding(**json.loads(line)) for line in lines]
    lost = list(MODELS[library])[len(found) :]
    why = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return [*found, *(Finding(library, name, "crashed", why) for name in lost)]


def shown(finding: Finding) -> str:
    """One line."""
    figures = "" if finding.gap is None else f"{finding.gap:8.0e} {times(finding):>8}"
    return f"{finding.library:32} {finding.name:26} {finding.outcome:8} {figures}{finding.why[:200]}"


def times(finding: Finding) -> str:
    """Time over a gradient, and within frozen()."""
    over = ", ".join(f"{v:.1f}" for v in (finding.over_gradient, finding.frozen) if v is not None)
    return over and over + ", on all pairs" * finding.pairs


def medians(findings: list[Finding]) -> dict[str, float]:
    """Of times over a gradient."""
    torch = [f for f in findings if f.over_gradient is not None]
    keras = [f.frozen for f in findings if f.over_gradient is None and f.frozen is not None]
    of_torch = ([f.over_gradient for f in torch], [f.frozen for f in torch])
    each = zip(("default", "frozen", "keras"), (*of_torch, keras), strict=True)
    return {name: statistics.median(values) for name, values in each}  # type: ignore[type-var]


def page(findings: list[Finding]) -> str:
    """docs/supported-models.md."""
    counts = Counter(finding.outcome for finding in findings)
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    lines = [HEAD.format(models=len(findings), said=said, pairs=sum(f.pairs for f in findings), **medians(findings))]
    for library, of_it in groupby(findings, key=lambda finding: finding.library):
        lines += [
            f"\n## {library}\n",
            "| Model | Outcome | Gap | Time over a gradient, frozen |",
            "| --- | --- | --- | --- |",
        ]
        lines += [f"| {f.name} | {f.outcome} | {'' if f.gap is None else f'{f.gap:.0e}'} | {times(f)} |" for f in of_it]
    lines += ["\n## Refused, and why\n"]
    lines += [f"- **{f.library}, {f.name}**: {reason(f.why)}" for f in findings if f.outcome != "exact"]
    return "\n".join(lines) + "\n"


def reason(why: str) -> str:
    """The beginning of a message, in one line."""
    line = " ".join(why.split()).replace("|", "\\|").replace("<", "&lt;")
    return line if len(line) <= LONGEST else line[:LONGEST].rsplit(" ", 1)[0] + " ..."


if __name__ == "__main__":
    if len(sys.argv) > 1:
        of_library(sys.argv[1])
        sys.exit()
    found = []
    for library in MODELS:
        for finding in in_a_process(library):
            print(shown(finding), flush=True)
            found.append(finding)
    PAGE.write_text(page(found))
    sys.exit(any(finding.outcome in ("wrong", "crashed") for finding in found))

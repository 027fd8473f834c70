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

This page shows whether deepshap explains a model of a library that you use, and how long the explanation takes.
`make zoo` writes the page: it builds {models} models from their configurations with random weights, and explains three
rows of each model against four references. Result: {said}.

- **Gap**: the largest difference between the sum of the attributions and the difference of the model's outputs, relative
  to the outputs; of all models of a library, the largest. Models run in float64. Some models compute in float32
  internally; their gap is about 1e-8 to 1e-6.
- **Time**: process time of the explanation of one output, relative to the framework's forward pass and gradient on as
  many rows as there are pairs, after warm-up; the median of the library. These models are tiny, so most of the time is
  Python. The [benchmarks](benchmarks.md) measure large models.
- **Frozen**: the same ratio within `frozen()`. Keras models are compared within `frozen()` only, with a gradient compiled by
  TensorFlow.
- **\\***: deepshap cannot identify the rows in all tensors of this model, so both sides run on every (row, reference) pair
  ({pairs} models). For all other models, both sides run once per row and reference where possible.

Over all PyTorch models, the median time is {default:.1f} times a gradient, or {frozen:.1f} times within `frozen()`. Over all
Keras models, the median is {keras:.1f} times a gradient.

The models are defined in `tests/zoo/`. Every test run explains some of the recurrent ones."""


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
    """Return the text of docs/supported-models.md."""
    counts = Counter(finding.outcome for finding in findings)
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    lines = [HEAD.format(models=len(findings), said=said, pairs=sum(f.pairs for f in findings), **medians(findings))]
    libraries = {name: list(group) for name, group in groupby(findings, key=lambda finding: finding.library)}
    torch = {name: any(f.over_gradient is not None for f in group) for name, group in libraries.items()}
    lines += ["\n## PyTorch\n", "| Library | Exact | Gap | Time | Frozen |", "| --- | --- | ---: | ---: | ---: |"]
    lines += [row(name, group, "over_gradient", "frozen") for name, group in libraries.items() if torch[name]]
    lines += ["\n## Keras\n", "| Library | Exact | Gap | Frozen |", "| --- | --- | ---: | ---: |"]
    lines += [row(name, group, "frozen") for name, group in libraries.items() if not torch[name]]
    lines += ["\n## Refused models\n"]
    lines += [f"- **{f.library}, {f.name}**: {reason(f.why)}" for f in findings if f.outcome != "exact"]
    return "\n".join(lines) + "\n"


def row(library: str, findings: list[Finding], *ratios: str) -> str:
    """Return the row of a library: its exact models, the largest gap, and the median of each ratio."""
    exact = [f for f in findings if f.outcome == "exact"]
    names = "; ".join(f.name + "\\*" * f.pairs for f in exact)
    gap = max((f.gap for f in exact if f.gap is not None), default=None)
    figures = [[v for f in exact if (v := getattr(f, ratio)) is not None] for ratio in ratios]
    cells = [library, names, "" if gap is None else f"{gap:.0e}"]
    return f"| {' | '.join([*cells, *(f'{statistics.median(v):.1f}' if v else '' for v in figures)])} |"


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

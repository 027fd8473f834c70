"""Measure how time and memory grow with the steps, the examples, the references, the outputs, budgets and threads."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from explainers import DeepShap, Native
from gradients import encoder
from problems import LastStep, Problem
from processes import Worker, write
from torch import nn

RESULTS = Path(__file__).parent / "results"
SERIES = {
    "steps": (25, 50, 100, 200, 500, 1000, 2000, 5000),
    "examples": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "references": (10, 30, 100, 300, 1000, 3000, 10_000),
    "outputs": (1, 2, 5, 10, 100, 1000),
}
BASES = {"outputs": 20}  # references, where fewer than elsewhere are enough to be no overhead
BUDGETS = "100 MB", "300 MB", "1 GB", "3 GB", "8 GB"
THREADS = 1, 2
QUICK = {"steps": (5, 10), "examples": (1, 2), "references": (5, 10), "outputs": (1, 2)}
NATIVE_OUTPUTS = 10  # each takes a backward pass of its own
NATIVE_BEYOND = 800_000  # rows times steps for which torch's own gradient, which keeps them all, takes 3 GiB
SLOW = 1.0  # seconds beyond which a call is timed once


@dataclass(frozen=True)
class Sizes:
    """An LSTM 8→64 and what it explains, where nothing else is said."""

    steps: int = 50
    examples: int = 8
    references: int = 100
    outputs: int = 1

    def problem(self) -> Problem:
        sizes = {"steps": self.steps, "examples": self.examples, "references": self.references}
        return Problem("LSTM 8→64", lambda: LastStep(nn.LSTM, 8, 64, self.outputs), 8, **sizes)

    @property
    def kept(self) -> int:
        """Rows times steps."""
        return self.steps * self.examples * self.references


# Where memory is what counts, and where all cores are used: by name, model, features, steps, examples and references.
SETTINGS = (
    Problem("LSTM 8→64, T=200", lambda: LastStep(nn.LSTM, 8, 64), 8, 200, examples=16, references=500),
    Problem("transformer encoder 16→64, T=50", lambda: encoder("relu"), 16, 50, examples=16, references=500),
)
QUICK_SETTINGS = (Problem("LSTM 8→64, T=10", lambda: LastStep(nn.LSTM, 8, 64), 8, 10, examples=2, references=5),)
# What is kept of the references alone takes more than the largest budget.
LONG = Problem("LSTM 8→64, T=1000", lambda: LastStep(nn.LSTM, 8, 64), 8, 1000, examples=1, references=3000)
LONG_BUDGETS = BUDGETS[-2:]
LARGE = Sizes(200, 128, 1000), "16 GB"
QUICK_LARGE = Sizes(10, 4, 20), "16 MB"


def series(worker: Worker, axis: str, points: list[Sizes], rounds: int) -> Iterator[dict[str, Any]]:
    """Points of one curve."""
    for k, sizes in enumerate(points):
        if worker.peer == Native.name and (sizes.kept > NATIVE_BEYOND or sizes.outputs > NATIVE_OUTPUTS):
            return
        worker.load(sizes.problem().make())
        if k == 0:
            worker.first()  # to be warm
        measured = worker.memory()
        row = {"axis": axis, "size": getattr(sizes, axis), "peer": worker.peer}
        if measured is None:
            yield {**row, "failure": worker.failure.reason}
            return
        seconds, extra, _ = measured
        answers = [worker.explain(seed) for seed in range(rounds if seconds < SLOW else 1)]
        seconds = statistics.median(answer[0] for answer in answers if answer is not None)
        yield {**row, "seconds": seconds, "memory_bytes": extra}


def large(worker: Worker, sizes: Sizes, max_memory: str) -> dict[str, Any]:
    """One call for much at once, with a budget that asks for more memory than is needed."""
    worker.load(replace(sizes, examples=8, references=100).problem().make())
    worker.first()  # to be warm
    worker.load(sizes.problem().make(), max_memory=max_memory)
    measured = worker.memory()
    row = {"problem": "LSTM 8→64", **asdict(sizes), "max_memory": max_memory}
    if measured is None:
        return row | {"failure": worker.failure.reason}
    return row | {"seconds": measured[0], "memory_bytes": measured[1]}


def budgets(worker: Worker, problem: Problem, asked: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Memory beyond that of the warm process, of one call with each budget."""
    worker.load(replace(problem, examples=min(8, problem.examples), references=10).make())
    worker.first()  # to be warm
    for budget in asked:
        worker.load(problem.make(), max_memory=budget)
        if (found := worker.memory()) is not None:
            yield {"problem": problem.name, "budget": budget, "seconds": found[0], "memory_bytes": found[1]}


def threads(worker: Worker, problem: Problem, rounds: int) -> Iterator[dict[str, Any]]:
    """Seconds in some threads, which take turns."""
    worker.load(replace(problem, examples=16, references=200).make())
    worker.first()
    taken: dict[int, list[float]] = {count: [] for count in THREADS}
    for k in range(rounds):
        for count, times in taken.items():
            worker.use(count)
            answer = worker.explain(k)
            times += [] if answer is None else [answer[0]]
    for count, times in taken.items():
        yield {"problem": problem.name, "threads": count, "seconds": statistics.median(times)}


def points_of(axis: str, quick: bool) -> list[Sizes]:
    """The points of one curve."""
    if quick:
        return [replace(Sizes(10, 2, 10), **{axis: value}) for value in QUICK[axis]]
    base = Sizes(references=BASES.get(axis, Sizes.references))
    return [replace(base, **{axis: value}) for value in SERIES[axis]]


def measured(quick: bool, only: str | None, rounds: int) -> dict[str, Any]:
    """All figures, or those of one part."""
    points, found = [], {}
    for peer in (Native.name, DeepShap.name):
        worker = Worker(peer)
        try:
            for axis in (axis for axis in SERIES if only in (None, axis)):
                for row in series(worker, axis, points_of(axis, quick), rounds):
                    points.append(row)
                    print(f"{axis:10} {row['size']:5}  {peer:20}{said(row)}", flush=True)
            if peer == DeepShap.name and only in (None, "large"):
                found["large"] = large(worker, *(QUICK_LARGE if quick else LARGE))
                print(f"{'large':18}{peer:20}{said(found['large'])}", flush=True)
            if peer == DeepShap.name:
                found |= by_settings(worker, QUICK_SETTINGS if quick else SETTINGS, only, rounds)
        finally:
            worker.close()
    return {"points": points, **found}


def by_settings(worker: Worker, problems: tuple[Problem, ...], only: str | None, rounds: int) -> dict[str, Any]:
    """What budgets and threads do."""
    found: dict[str, Any] = {}
    if only in (None, "budgets"):
        asked = dict.fromkeys(problems, BUDGETS) | ({LONG: LONG_BUDGETS} if problems is SETTINGS else {})
        found["budgets"] = [row for problem, some in asked.items() for row in budgets(worker, problem, some)]
    if only in (None, "threads"):
        found["threads"] = [row for problem in problems for row in threads(worker, problem, rounds)]
    for row in (row for rows in found.values() for row in rows):
        print(row, flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure, print as it goes, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="calls of which the median is taken")
    parser.add_argument(
        "--only", choices=[*SERIES, "large", "budgets", "threads"], help="one part; results are not kept"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round; results are not kept")
    parser.add_argument("--output", type=Path, help="where to write the figures; of a full run benchmarks/results")
    options = parser.parse_args(arguments)
    figures = measured(options.quick, options.only, 1 if options.quick else options.rounds)
    if options.output or not (options.only or options.quick):
        write(options.output or RESULTS / "scaling.json", figures)


def said(row: dict[str, Any]) -> str:
    """A row's figures for the terminal."""
    if "failure" in row:
        return row["failure"]
    return f"{row['seconds']:9.3f} s{row['memory_bytes'] / 2**20:8.0f} MiB"


if __name__ == "__main__":
    main()

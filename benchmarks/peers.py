"""Measure deepshap beside its alternatives: time, memory, additivity, and distance to the exact Shapley values.

Every peer has a process of its own. They are asked in turns, one at a time, so that a machine whose speed drifts treats
them alike; times are medians over the rounds, ratios are to torch's own forward pass and input gradient of the same pairs.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from explainers import NEAREST, OF_WINDOWS, PEERS, YARDSTICKS, DeepShap, Floor, Native, ShapDeep
from problems import (
    ACCURACY,
    FIRST_CALLS,
    HOME,
    QUICK,
    SMALL,
    SPEED,
    Case,
    LastStep,
    Problem,
    distance,
    gap,
    outputs,
    shapley_values,
)
from processes import Worker, write

RESULTS = Path(__file__).parent / "results"
SLOW, SLOW_ROUNDS = 0.5, 2  # what takes longer than so many seconds is asked that often, the call for memory among them
SMALL_ROUNDS = 10  # for one of others, where calls take milliseconds


Candidate = tuple[str, int | None]  # a peer and its budget


class Comparison:
    """Processes of peers, which are asked in turns about one case after the other."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def start(self, case: Case, peers: list[str]) -> None:
        """Take up a case, and let every peer explain it once, to be warm."""
        self.peers = peers
        self.times: dict[Candidate, list[float]] = {}
        self.values: dict[Candidate, list[Any]] = {}
        for peer in peers:
            if peer not in self._workers or not self._workers[peer].alive:
                self._workers[peer] = Worker(peer)
        for peer in peers:
            self._workers[peer].load(case)
        for peer in peers:
            self._workers[peer].first()

    def memory(self) -> dict[str, int]:
        """Peak memory of every peer that did not fail; of slow ones it is timed too, if they have nothing to compile."""
        answers = {peer: self._workers[peer].memory() for peer in self.peers}
        for peer, answer in answers.items():
            if answer is not None and answer[0] > SLOW and peer != DeepShap.name:
                self.times[peer, None] = [answer[0]]
        return {peer: answer[1] for peer, answer in answers.items() if answer is not None}

    def round(self, seed: int, candidates: list[Candidate]) -> None:
        """Let every candidate explain once."""
        for peer, budget in candidates:
            times = self.times.setdefault((peer, budget), [])
            if len(times) >= SLOW_ROUNDS and statistics.median(times) > SLOW:
                continue
            answer = self._workers[peer].explain(seed, budget)
            if answer is not None:
                times.append(answer[0])
                self.values.setdefault((peer, budget), []).append(answer[1])

    def figures(self, candidate: Candidate, wanted: np.ndarray) -> dict[str, Any]:
        """Median time, its ratio, and the gap of the sums; or why there is none."""
        peer = candidate[0]
        failure = self._workers[peer].failure
        if failure is not None:
            return {"failure": failure.reason}
        seconds = statistics.median(self.times[candidate])
        row = {"seconds": seconds, "ratio": seconds / statistics.median(self.times[Native.name, None])}
        if peer not in YARDSTICKS:
            row["gap"] = statistics.mean(gap(values, wanted) for values in self.values[candidate])
        return row

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers.values():
            worker.close()


def speed(problem: Problem, compared: Comparison, peers: list[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Time and memory of all peers on one problem."""
    case = problem.make()
    wanted = outputs(case)
    without = set() if isinstance(case.model, LastStep) else {Floor.name}
    without |= set() if problem.windows else set(OF_WINDOWS)
    peers = [peer for peer in peers if peer not in without]
    compared.start(case, peers)
    memory = compared.memory()
    for k in range(rounds * (SMALL_ROUNDS if problem in SMALL else 1)):
        compared.round(k, [(peer, None) for peer in peers])
    for peer in peers:
        row = {"problem": problem.name, "peer": peer, "budget": PEERS[peer].budget}
        row |= compared.figures((peer, None), wanted)
        yield row | ({} if "failure" in row else {"memory_bytes": memory[peer]})


def accuracy(problem: Problem, compared: Comparison, peers: list[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Distances to the exact Shapley values, at several budgets; of methods that sample the mean over the rounds."""
    case = problem.make()
    wanted, exact = outputs(case), shapley_values(case)
    peers = [peer for peer in peers if peer != Floor.name]
    candidates = [(peer, budget) for peer in peers for budget in PEERS[peer].budgets]
    compared.start(case, peers)
    for k in range(rounds):
        compared.round(k, candidates)
    for peer, budget in candidates:
        row = {"problem": problem.name, "peer": peer, "budget": budget, **compared.figures((peer, budget), wanted)}
        if "gap" in row:
            row["distance"] = statistics.mean(distance(v, exact) for v in compared.values[peer, budget])
        yield row


def first_calls(problem: Problem) -> dict[str, Any]:
    """Seconds of the first call in a process, deepshap's before its kernels were compiled and after.

    The last two are those of imports and call, beyond what it takes to have torch: deepshap's and shap's.
    """
    case = problem.make()
    with tempfile.TemporaryDirectory() as folder, environment("NUMBA_CACHE_DIR", folder):
        (_, compiling), (imports, reading) = (_first_call(case, DeepShap.name) for _ in range(2))
    found = {"problem": problem.name, "compiling_seconds": compiling, "reading_seconds": reading}
    return found | {"process_seconds": imports + reading, "shap_seconds": sum(_first_call(case, ShapDeep.name))}


def _first_call(case: Case, peer: str) -> tuple[float, float]:
    """Seconds of its imports, and of the call."""
    worker = Worker(peer)
    try:
        imports, seconds = worker.load(case), worker.first()
        if imports is None or seconds is None:
            raise RuntimeError(f"{worker.peer}: {worker.failure.reason}")
        return imports, seconds
    finally:
        worker.close()


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """A variable for the processes that are started here."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def said(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    text = f"  {row['peer']:29}{row['budget'] or '':>4}"
    if "failure" in row:
        return f"{text}  {row['failure']}"
    text += f"{row['seconds']:9.3f} s{row['ratio']:8.2f} x"
    text += f"{row['memory_bytes'] / 2**20:7.0f} MiB" if "memory_bytes" in row else ""
    text += f"  gap {row['gap']:.0e}" if "gap" in row else ""
    return text + (f"  distance {row['distance']:.3f}" if "distance" in row else "")


def main(arguments: list[str] | None = None) -> None:
    """Measure, print as it goes, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often every peer is asked")
    parser.add_argument("--only", default="", help="a regular expression for 'problem: peer'; results are not kept")
    parser.add_argument("--quick", action="store_true", help="one tiny problem, one round; results are not kept")
    parser.add_argument("--output", type=Path, help="where to write the figures; of a full run benchmarks/results")
    options = parser.parse_args(arguments)
    figures = measured(1 if options.quick else options.rounds, options.only, options.quick)
    full = not options.only and not options.quick
    if options.output or full:
        write(options.output or RESULTS / "peers.json", figures)


PARTS: tuple[tuple[str, Any, tuple[Problem, ...], tuple[str, ...]], ...] = (
    ("speed", speed, SPEED, tuple(PEERS)),
    ("home", speed, HOME, tuple(PEERS)),
    ("small", speed, SMALL, NEAREST),
    ("accuracy", accuracy, ACCURACY, tuple(PEERS)),
)


def measured(rounds: int, only: str, quick: bool) -> dict[str, Any]:
    """All figures, or those of a choice."""
    figures: dict[str, Any] = {"rounds": rounds}
    compared = Comparison()
    try:
        for what, measure, problems, peers in PARTS:
            figures[what] = []
            for problem in (QUICK,) if quick else problems:
                chosen = [peer for peer in peers if re.search(only, f"{problem.name}: {peer}")]
                if chosen:
                    print(f"{what}: {problem.name}", flush=True)
                    for row in measure(problem, compared, list(dict.fromkeys([Native.name, *chosen])), rounds):
                        figures[what].append(row)
                        print(said(row), flush=True)
    finally:
        compared.close()
    figures["first_calls"] = [first_calls(problem) for problem in FIRST_CALLS if not quick and not only]
    return figures


if __name__ == "__main__":
    main()

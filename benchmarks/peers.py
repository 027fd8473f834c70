"""Measure deepshap beside its alternatives: time, memory and additivity.

Every peer has a process of its own. They are asked in turns, one at a time, so that a machine whose speed drifts treats
them alike; times are medians over the rounds, ratios are to torch's own forward pass and input gradient of the same pairs.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from explainers import NEAREST, OF_WINDOWS, PEERS, YARDSTICKS, DeepShap, Floor, Native, ShapDeep
from problems import (
    FIRST_CALLS,
    HOME,
    QUICK,
    SMALL,
    SPEED,
    Case,
    LastStep,
    Problem,
    gap,
    outputs,
)
from processes import Worker, write

RESULTS = Path(__file__).parent / "results"
# What takes longer than so many seconds is asked that often, the call for memory among them.
SLOW, SLOW_ROUNDS = 0.5, 2
VERY_SLOW, VERY_SLOW_ROUNDS = 1.5, 1


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
                self.times[peer, None], self.values[peer, None] = [answer[0]], [answer[2]]
        return {peer: answer[1] for peer, answer in answers.items() if answer is not None}

    def round(self, seed: int, candidates: list[Candidate]) -> None:
        """Let every candidate explain once."""
        for peer, budget in candidates:
            times = self.times.setdefault((peer, budget), [])
            if _is_enough(times):
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


def _is_enough(times: list[float]) -> bool:
    slow = ((SLOW, SLOW_ROUNDS), (VERY_SLOW, VERY_SLOW_ROUNDS))
    return any(len(times) >= rounds and statistics.median(times) > seconds for seconds, rounds in slow)


def speed(problem: Problem, compared: Comparison, peers: list[str], rounds: int) -> Iterator[dict[str, Any]]:
    """Time and memory of all peers on one problem."""
    case = problem.make()
    wanted = outputs(case)
    without = set() if isinstance(case.model, LastStep) else {Floor.name}
    without |= set() if problem.windows else set(OF_WINDOWS)
    peers = [peer for peer in peers if peer not in without]
    compared.start(case, peers)
    memory = compared.memory()
    for k in range(rounds):
        compared.round(k, [(peer, None) for peer in peers])
    for peer in peers:
        row = {"problem": problem.name, "peer": peer, "budget": PEERS[peer].budget}
        row |= compared.figures((peer, None), wanted)
        yield row | ({} if "failure" in row else {"memory_bytes": memory[peer]})


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
    parts = {
        "speed": (speed, SPEED, tuple(PEERS)),
        "home": (speed, HOME, tuple(PEERS)),
        "small": (speed, SMALL, NEAREST),
    }
    compare(__doc__, "peers", parts, arguments, {"first_calls": (first_calls, FIRST_CALLS)})


Measure = Callable[[Problem, Comparison, list[str], int], Iterator[dict[str, Any]]]
Part = tuple[Measure, tuple[Problem, ...], tuple[str, ...]]


def compare(
    about: str,
    name: str,
    parts: dict[str, Part],
    arguments: list[str] | None,
    in_full: Mapping[str, tuple[Callable[[Problem], dict[str, Any]], tuple[Problem, ...]]] = MappingProxyType({}),
) -> None:
    """A program that measures parts, each with its problems and peers, and what only a full run has, problem by problem."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often every peer is asked")
    parser.add_argument("--only", default="", help="a regular expression for 'problem: peer'; results are not kept")
    parser.add_argument("--quick", action="store_true", help="one tiny problem, one round; results are not kept")
    parser.add_argument("--output", type=Path, help="where to write the figures; of a full run benchmarks/results")
    options = parser.parse_args(arguments)
    full = not options.only and not options.quick
    figures: dict[str, Any] = {"rounds": 1 if options.quick else options.rounds}
    with closing(Comparison()) as compared:
        for what, (measure, problems, peers) in parts.items():
            print(f"{what}:", flush=True)
            of_problem = partial(measured, measure, compared, peers, figures["rounds"], options.only)
            figures[what] = list(chain.from_iterable(map(of_problem, (QUICK,) if options.quick else problems)))
    figures |= {what: [of(problem) for problem in problems if full] for what, (of, problems) in in_full.items()}
    if options.output or full:
        write(options.output or RESULTS / f"{name}.json", figures)


def measured(
    measure: Measure, compared: Comparison, peers: tuple[str, ...], rounds: int, only: str, problem: Problem
) -> Iterator[dict[str, Any]]:
    """The figures of those peers that are asked for, printed as they come."""
    chosen = [peer for peer in peers if re.search(only, f"{problem.name}: {peer}")]
    if chosen:
        print(problem.name, flush=True)
        for row in measure(problem, compared, list(dict.fromkeys([Native.name, *chosen])), rounds):
            print(said(row), flush=True)
            yield row


if __name__ == "__main__":
    main()

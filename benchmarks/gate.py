"""Speed gate: the explanation of eight PyTorch models, timed on a base commit and on the working tree in one run.

Two processes per model, one for each source folder, take turns, so that both meet the same load of the machine. Each turn
times one call per size. The table shows process time of one thread as a ratio of the working tree to the base: of warm calls
within and without ``frozen()``, of the first call in a process (in a fork, so that each turn has one), and the memory that the
first call of a later explainer adds at its peak.

    python benchmarks/gate.py build/gate/src             # measure, print the table
    python benchmarks/gate.py build/gate/src --write     # also write benchmarks/results/gate.md
    python benchmarks/gate.py build/gate/src --only LSTM

``make gate BASE=<commit>`` checks the commit out and calls the first of these.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "gate.md"
SOURCES = Path(__file__).parents[1] / "src"
SIZES = (8, 100), (1, 100)
STEPS, FEATURES, UNITS = 50, 16, 64
TURNS = {"first": 2, "warm": 5, "memory": 1}
NAMES = "LSTM", "GRU", "packed LSTM", "loop of cells", "transformer encoder", "TCN", "CNN", "MLP"


# ---------------------------------------------------------------------- in a process of its own
def build(name: str) -> tuple[Any, Callable[[int], Any], Callable[[int], Any]]:
    """Return a model, and what makes rows of its input and row arguments for a number of rows."""
    import torch
    from problems import Encoder, LastStep, perceptron, pictures
    from torch import nn

    class Packed(LastStep):
        def forward(self, x: Any, lengths: Any) -> Any:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.read_out(self.recurrent(packed)[1][0][-1])

    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.read_out = nn.LSTMCell(FEATURES, UNITS), nn.Linear(UNITS, 1)

        def forward(self, x: Any) -> Any:
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return self.read_out(state[0])

    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = (FEATURES, 32, 32, 32)
            self.layers = nn.ModuleList(
                nn.Conv1d(a, b, 3, dilation=2**k, padding=2 ** (k + 1)) for k, (a, b) in enumerate(pairwise(sizes))
            )
            self.read_out = nn.Linear(32, 1)

        def forward(self, x: Any) -> Any:
            x = x.transpose(1, 2)
            for layer in self.layers:
                x = torch.relu(layer(x)[..., : x.shape[-1]])
            return self.read_out(x[..., -1])

    torch.manual_seed(0)
    models = {
        "LSTM": lambda: LastStep(nn.LSTM, FEATURES, UNITS),
        "GRU": lambda: LastStep(nn.GRU, FEATURES, UNITS),
        "packed LSTM": lambda: Packed(nn.LSTM, FEATURES, UNITS),
        "loop of cells": Cells,
        "transformer encoder": lambda: Encoder(FEATURES, UNITS, STEPS),
        "TCN": Convolutions,
        "CNN": lambda: pictures(1),
        "MLP": lambda: perceptron(1),
    }
    shape = {"CNN": (1, 28, 28), "MLP": (20,)}.get(name, (STEPS, FEATURES))
    lengths = (lambda rows: torch.arange(rows) % 10 + STEPS - 9) if name == "packed LSTM" else lambda rows: None
    return models[name]().eval().requires_grad_(False), lambda rows: torch.randn(rows, *shape), lengths


def work(name: str) -> None:
    """Explain what a line of standard input asks for; print the seconds of process time, or the bytes of memory."""
    import torch

    from deepshap import DeepExplainer

    torch.set_num_threads(1)
    model, rows, lengths = build(name)
    x, background = rows(8), rows(100)
    explainers = {size: DeepExplainer(model, background[: size[1]]) for size in SIZES}

    def call(size: tuple[int, int], explainer: Any) -> float:
        start, extra = time.process_time(), lengths(size[0])
        explainer(x[: size[0]], **({} if extra is None else {"additional_forward_args": extra}))
        return time.process_time() - start

    def turn(size: tuple[int, int], least: float = 0.25) -> list[float]:
        times = [call(size, explainers[size]) for _ in range(2)]
        times += [call(size, explainers[size]) for _ in range(int(min(20, least / max(times))))]
        with explainers[size].frozen():
            call(size, explainers[size])
            return [median(times), median([call(size, explainers[size]) for _ in times])]

    for line in sys.stdin:
        kind, *numbers = json.loads(line)
        size = tuple(numbers)
        fresh = DeepExplainer(model, background[: size[1]])
        print(json.dumps(turn(size) if kind == "warm" else _forked(lambda: call(size, fresh))), flush=True)  # noqa: B023


def _forked(call: Callable[[], float]) -> list[float]:
    """Make a call in a fork of this process; return its seconds, and how much its peak memory is above what it began with."""
    end, other_end = os.pipe()
    if not (child := os.fork()):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = call()
        os.write(other_end, json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]).encode())
        os._exit(0)
    os.close(other_end)
    os.waitpid(child, 0)
    with os.fdopen(end) as pipe:
        return json.load(pipe)


# ---------------------------------------------------------------------- from outside
class Worker:
    """A process that explains one model with the library in a source folder."""

    def __init__(self, sources: Path, name: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", __file__, str(sources), "--work", name]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, kind: str, size: tuple[int, int]) -> list[float]:
        """Return what was measured."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([kind, *size]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(base: Path, name: str) -> list[str]:
    """Return a table's rows for one model."""
    workers = [Worker(base, name), Worker(SOURCES, name)]
    results = {
        (kind, size): np.array([[w.ask(kind, size) for w in workers] for _ in range(turns)])  # (turns, sides, numbers)
        for kind, turns in TURNS.items()
        for size in SIZES
    }
    for worker in workers:
        worker.close()
    lines = []
    for size in SIZES:
        first, warm, memory = (results[kind, size] for kind in TURNS)
        milliseconds = np.median(warm[:, :, 0], 0) * 1e3
        ratios = [*np.median(warm[:, 1] / warm[:, 0], 0), first[:, 1, 0].min() / first[:, 0, 0].min()]
        cells = [
            *(f"{v:.1f}" for v in milliseconds),
            *(f"{r:.2f}" for r in ratios),
            *(f"{m / 1024:.0f}" for m in memory[0, :, 1]),
        ]
        lines.append(f"| {name} | {size[0]} × {size[1]} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="source folder of the base commit")
    parser.add_argument("--only", default="", help="models, by a regular expression")
    parser.add_argument("--base-name", default="the base commit")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/gate.md")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    head = ["model", "pairs", "base, ms", "now, ms", "ratio", "ratio, frozen", "first call", "base, MiB", "now, MiB"]
    lines = [f"| {' | '.join(head)} |", "| --- | --- |" + " ---: |" * 7]
    print(*lines, sep="\n", flush=True)
    for name in NAMES:
        if re.search(options.only, name):
            lines += measure(options.base.resolve(), name)
            print(*lines[-2:], sep="\n", flush=True)
    if options.write:
        title = (
            f"Process time of one thread and peak memory of a first call, beside {options.base_name}; {date.today()}."
        )
        RESULT.write_text("\n".join([title, "", *lines, ""]))


if __name__ == "__main__":
    main()

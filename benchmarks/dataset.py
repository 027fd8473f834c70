"""What whole data sets cost: rows per second with and without workers and Ray, memory over the run, writing, resuming.

    python benchmarks/dataset.py            all figures, in benchmarks/results/dataset.json and in docs/a-million-rows.md
    python benchmarks/dataset.py --rows 2000 --output look.json        a look, which leaves the page alone

It takes some seven minutes on two cores. Leave the machine alone.

Every run is a process of its own, which starts with nothing in memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow
import tables
import torch
from processes import write
from torch import nn

import deepshap
from deepshap.dataset.folder import write_part
from deepshap.dataset.row_explainer import RowExplainer
from deepshap.dataset.sources import Batch
from deepshap.explanation import storage

ROWS, REFERENCES, STEPS, FEATURES, PART = 100_000, 50, 30, 4, 1000
RESULTS = Path(__file__).parent / "results" / "dataset.json"
PAGE = Path(__file__).parents[1] / "docs" / "a-million-rows.md"
SAMPLED_EVERY = 0.25  # seconds between looks at the memory


class Recurrent(nn.Module):
    """An LSTM of 32 units and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(FEATURES, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        if lengths is None:
            return self.head(self.lstm(x)[0][:, -1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


class Padded(Recurrent):
    """It runs over the padding, and takes the last valid step."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][torch.arange(len(x)), lengths - 1])


def explainer(model: type[Recurrent] = Recurrent) -> Any:
    background = np.random.default_rng(1).normal(size=(REFERENCES, STEPS, FEATURES)).astype(np.float32)
    return deepshap.DeepExplainer(model(), background, progress=False)


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(count, STEPS, FEATURES)).astype(np.float32)


# ---------------------------------------------------------------------- in a process of its own
class Memory:
    """Resident memory of this process and its children over time, in bytes."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self._process, self._end = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(SAMPLED_EVERY):
            total = 0
            for process in (self._process, *self._process.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.samples.append(total)

    def told(self) -> dict[str, float]:
        """Gigabytes in the second and in the last quarter of the run, and at most: flat, if the first two are alike."""
        found = np.array(self.samples or [0]) / 1e9
        quarter = max(1, len(found) // 4)
        second, last = found[quarter : 2 * quarter], found[-quarter:]
        medians = (float(np.median(part)) if len(part) else 0.0 for part in (second, last))
        return {
            **dict(zip(("second_quarter_gb", "last_quarter_gb"), medians, strict=True)),
            "most_gb": float(found.max()),
        }


def run(count: int, folder: str, options: dict[str, Any]) -> dict[str, Any]:
    """One run, and the same call again on the complete folder."""
    x, made = rows(count), explainer()
    made(x[:PART])  # kernels are compiled and the background is known
    begun, clock = time.perf_counter(), time.time()
    with Memory() as memory:
        found = deepshap.explain_dataset(made, x, folder, rows_per_part=PART, progress=False, **options)
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    deepshap.explain_dataset(made, x, folder, rows_per_part=PART, progress=False, **options)
    written = sorted(path.stat().st_mtime for path in found.paths)
    return {
        "seconds": seconds,
        "rows_per_second": count / seconds,
        "seconds_to_first_part": written[0] - clock,
        "rows_per_second_then": (count - PART) / (written[-1] - written[0]),
        "seconds_when_complete": time.perf_counter() - begun,
        "megabytes": sum(path.stat().st_size for path in found.paths) / 1e6,
        **memory.told(),
    }


def plain(count: int) -> dict[str, Any]:
    """The explainer's own calls, without data sets."""
    x, made = rows(count), explainer()
    made(x[:PART])
    begun = time.perf_counter()
    with made.frozen():
        for start in range(0, count, PART):
            made(x[start : start + PART])
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "rows_per_second": count / seconds}


def writing(count: int, folder: str) -> dict[str, Any]:
    """What parts cost to be written, flushed and named."""
    explain = RowExplainer(explainer(), "raise", {})
    batch = Batch(0, rows(PART), np.arange(PART))
    explanation, _ = explain.explain(batch)
    begun = time.perf_counter()
    for number in range(count // PART):
        schema, lines = storage.long_tables(explanation, 0)
        sink = pyarrow.BufferOutputStream()
        storage.write(sink, schema, lines)
        write_part(Path(folder), number, sink.getvalue())
    return {"seconds": time.perf_counter() - begun, "parts": count // PART}


def lengths(count: int) -> dict[str, Any]:
    """Processor time for rows of 1 to 30 steps, most of them short: grouped by length, and all padded to the longest.

    Of a model that packs its rows, and so leaves out the padding by itself, and of one that runs over it.
    """
    torch.set_num_threads(1)  # or waiting counts as work
    random = np.random.default_rng(3)
    x, steps = rows(count), np.minimum(1 + random.geometric(0.15, count), STEPS)
    x[np.arange(STEPS) >= steps[:, None]] = 0
    found: dict[str, Any] = {"rows": count, "mean_length": float(steps.mean())}
    for name, model in (("packs", Recurrent), ("runs over the padding", Padded)):
        made, seconds = explainer(model), {}
        with RowExplainer(made, "raise", {}) as explain:
            for how in ("padded", "grouped", "padded", "grouped"):
                begun = time.process_time()
                for start in range(0, count, PART):
                    at = slice(start, start + PART)
                    if how == "grouped":
                        explain(Batch(0, x[at], np.arange(len(x[at])), steps[at]))
                    else:
                        made(x[at], additional_forward_args=(steps[at],))
                seconds[how] = time.process_time() - begun  # the second time counts: all is compiled and known
        found[name] = seconds
    return found


# ---------------------------------------------------------------------- all of them
def figures(count: int) -> dict[str, Any]:
    variants: dict[str, Any] = {
        "one process": {},
        "two workers": {"workers": 2},
        "Ray, one actor": {"ray": "local"},
        "Ray, two actors": {"ray": "local", "workers": 2},
    }
    found: dict[str, Any] = {"rows": count, "references": REFERENCES, "steps": STEPS, "rows_per_part": PART}
    found["runs"] = {"calls of the explainer alone": alone("plain", count)}
    found["runs"] |= {name: alone("run", count, options) for name, options in variants.items()}
    found["writing"] = alone("writing", count)
    found["lengths"] = alone("lengths", max(PART, count // 50))
    return found


def alone(what: str, count: int, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """A function of this module in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"run": (count, folder, options), "writing": (count, folder)}.get(what, (count,))
        command = [sys.executable, __file__, "--alone", json.dumps([what, *arguments])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        what, *arguments = json.loads(given.alone)
        print(json.dumps(globals()[what](*arguments)))
    else:
        write(given.output, figures(given.rows))
        if given.output == RESULTS:
            tables.fill(PAGE, {"dataset": tables.dataset(json.loads(RESULTS.read_text(encoding="utf-8")))})


if __name__ == "__main__":
    main()

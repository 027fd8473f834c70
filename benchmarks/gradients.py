"""Measure deepshap beside PyTorch's own forward pass and input gradient, for models in and around recurrent layers.

Each model in a process of its own, in turns, by processor time of one thread, so that other programs change little.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from problems import Encoder, LastStep, perceptron, pictures
from processes import machine, write
from torch import Tensor, nn

import deepshap

RESULTS = Path(__file__).parent / "results" / "gradients.json"
PAIRS = (8, 100), (1, 100), (64, 200)
WARM = 1.0  # seconds of calls that are not timed
NOTED = 3  # calls within frozen() in which the model becomes known
LONGEST = 0.3  # seconds of a gradient, beyond which no more pairs are asked for
SLOW, SLOW_ROUNDS = 1.0, 1  # a gradient that takes longer, once it is warm, has so many turns


# ---------------------------------------------------------------------- models
class ThenAttention(nn.Module):
    """A GRU, and self-attention over its steps."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(features, units, batch_first=True)
        self.attention = nn.MultiheadAttention(units, 4, batch_first=True)
        self.read_out = nn.Linear(units, 1)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.recurrent(x)[0]
        return self.read_out(self.attention(steps, steps, steps, need_weights=False)[0].mean(1))


class Block(nn.Module):
    """Two causal convolutions beside a connection around them."""

    def __init__(self, ahead: int, behind: int, dilation: int) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)
        self.first = nn.Conv1d(ahead, behind, 3, dilation=dilation)
        self.second = nn.Conv1d(behind, behind, 3, dilation=dilation)
        self.around = nn.Conv1d(ahead, behind, 1)

    def forward(self, x: Tensor) -> Tensor:
        inside = torch.relu(self.second(self.pad(torch.relu(self.first(self.pad(x))))))
        return torch.relu(inside + self.around(x))


class TemporalConvolutions(nn.Module):
    """Blocks of growing dilation, and a read-out of the last step."""

    def __init__(self, features: int, channels: int, levels: int = 3) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(channels if k else features, channels, 2**k) for k in range(levels)))
        self.read_out = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(self.blocks(x.transpose(1, 2))[:, :, -1])


class Patches(nn.Module):
    """A transformer layer over patches of each channel by itself, as in PatchTST: rows and channels share an axis."""

    def __init__(self, channels: int, steps: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch, self.embedding = patch, nn.Linear(patch, width)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.read_out = nn.Linear(channels * steps // patch * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.transpose(1, 2).reshape(-1, x.shape[1] // self.patch, self.patch)
        return self.read_out(self.layer(self.embedding(patches)).reshape(len(x), -1))


class OfEachChannel(nn.Module):
    """One LSTM takes each channel by itself, and a linear layer their last steps together."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.recurrent, self.read_out = nn.LSTM(1, units, batch_first=True), nn.Linear(channels * units, 1)

    def forward(self, x: Tensor) -> Tensor:
        series = x.transpose(1, 2).reshape(-1, x.shape[1], 1)
        return self.read_out(self.recurrent(series)[0][:, -1].reshape(len(x), -1))


class StepsFirst(nn.Module):
    """An LSTM that takes steps first, and a perceptron of every step: rows and steps share an axis, steps outside."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(features, units)
        self.each = nn.Sequential(nn.Linear(units, units), nn.Tanh(), nn.Linear(units, 1))

    def forward(self, x: Tensor) -> Tensor:
        steps = self.recurrent(x.transpose(0, 1))[0]
        return self.each(steps.flatten(0, 1)).reshape(len(steps), len(x)).mean(0)[:, None]


class Packed(nn.Module):
    """A recurrent layer over sequences of different lengths, and a read-out of where each ends."""

    def __init__(self, layer: type[nn.RNNBase], features: int, units: int) -> None:
        super().__init__()
        self.recurrent, self.read_out = layer(features, units, batch_first=True), nn.Linear(units, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        last = self.recurrent(packed)[1]
        return self.read_out((last[0] if isinstance(last, tuple) else last)[-1])


class Padded(Packed):
    """Runs over the padding, and reads out where each sequence ends."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps = self.recurrent(x)[0]
        return self.read_out(steps[torch.arange(len(x)), lengths - 1])


class Cells(nn.Module):
    """A loop of cells reads a sequence; another goes on from there, on its own answers."""

    def __init__(self, features: int, units: int, horizon: int) -> None:
        super().__init__()
        self.reader, self.writer = nn.LSTMCell(features, units), nn.LSTMCell(1, units)
        self.read_out, self.horizon = nn.Linear(units, 1), horizon

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.reader.hidden_size), x.new_zeros(len(x), self.reader.hidden_size)
        for step in x.unbind(1):
            state = self.reader(step, state)
        answer = self.read_out(state[0])
        for _ in range(self.horizon):
            state = self.writer(answer, state)
            answer = self.read_out(state[0])
        return answer


def encoder(activation: str) -> nn.Module:
    model = Encoder(16, 64, 50)
    for layer in model.encoder.layers:
        layer.activation = getattr(nn.functional, activation)
    return model


# ---------------------------------------------------------------------- what is measured
@dataclass(frozen=True)
class Problem:
    """``goal`` is the largest ratio that is wanted; ``lengths`` are passed beside the rows."""

    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    goal: float
    lengths: bool = False

    def rows(self, number: int) -> tuple[Tensor, ...]:
        x = torch.randn(number, *self.shape)
        return (x, torch.randint(self.shape[0] // 3, self.shape[0] + 1, (number,))) if self.lengths else (x,)


SEQUENCE = 50, 16
PROBLEMS = (
    Problem("LSTM 16→64, T=50", lambda: LastStep(nn.LSTM, 16, 64), SEQUENCE, 0.25),
    Problem("LSTM 16→64, T=50, 10 outputs", lambda: LastStep(nn.LSTM, 16, 64, 10), SEQUENCE, 0.25),
    Problem("GRU 16→64, T=50", lambda: LastStep(nn.GRU, 16, 64), SEQUENCE, 0.35),
    Problem("LSTM 1→32 of each of 5 channels, T=50", lambda: OfEachChannel(5, 32), (50, 5), 0.25),
    Problem("LSTM 16→64, steps first, read at each, T=50", lambda: StepsFirst(16, 64), SEQUENCE, 0.35),
    Problem("packed LSTM 16→64, T=50", lambda: Packed(nn.LSTM, 16, 64), SEQUENCE, 0.45, lengths=True),
    Problem("packed GRU 16→64, T=50", lambda: Packed(nn.GRU, 16, 64), SEQUENCE, 0.45, lengths=True),
    Problem("padded LSTM 16→64, T=50", lambda: Padded(nn.LSTM, 16, 64), SEQUENCE, 0.45, lengths=True),
    Problem("loops of LSTM cells 16→64, 50 + 10 steps", lambda: Cells(16, 64, 10), SEQUENCE, 0.5),
    Problem("GRU 16→64 and self-attention, T=50", lambda: ThenAttention(16, 64), SEQUENCE, 0.5),
    Problem("transformer encoder 16→64, relu, T=50", lambda: encoder("relu"), SEQUENCE, 0.8),
    Problem("transformer encoder 16→64, gelu, T=50", lambda: encoder("gelu"), SEQUENCE, 0.8),
    Problem("transformer over patches of 4 channels, T=96", lambda: Patches(4, 96, 8, 64), (96, 4), 0.8),
    Problem("temporal convolutions 16→32, T=50", lambda: TemporalConvolutions(16, 32), SEQUENCE, 0.7),
    Problem("2-D convolutions, 28 x 28, 10 outputs", lambda: pictures(10), (1, 28, 28), 1.15),
    Problem("2-D convolutions, 28 x 28, 1 output", lambda: pictures(1), (1, 28, 28), 0.7),
    Problem("MLP 20→128→128, 3 outputs", lambda: perceptron(3), (20,), 1.0),
    Problem("MLP 20→128→128, 1 output", lambda: perceptron(1), (20,), 0.7),
)


class Turns:
    """A problem of some size, and those who take turns at it."""

    def __init__(self, problem: Problem, examples: int, references: int) -> None:
        torch.manual_seed(0)
        self.model = problem.model().eval().requires_grad_(False)
        self.x, self.references = problem.rows(examples), references
        # With lengths of their own examples see a reference to where they end.
        background = problem.rows(references)[0]
        self.given = {"additional_forward_args": self.x[1:]} if problem.lengths else {}
        self.explainer = deepshap.DeepExplainer(self.model, background, progress=False)

    def gradient(self) -> None:
        rows, *rest = (v.repeat_interleave(self.references, 0) for v in self.x)
        rows.requires_grad_()
        totals = self.model(rows, *rest).sum(0)
        for k, total in enumerate(totals):
            torch.autograd.grad(total, rows, retain_graph=k + 1 < len(totals))

    def default(self) -> None:
        self.explainer.shap_values(self.x[0], **self.given)

    def frozen(self) -> None:
        with self.explainer.frozen():
            self.timed = seconds(self.default, 2 * NOTED)[NOTED:]

    def measure(self, rounds: int) -> dict[str, float]:
        (first,) = seconds(self.gradient)
        self.default()
        spent = 0.0
        while spent < WARM:  # and compiled
            spent += sum(seconds(self.default))
        rounds = min(rounds, SLOW_ROUNDS) if first > SLOW else rounds
        took: dict[str, list[float]] = {"gradient": [], "default": [], "frozen": []}
        for _ in range(rounds):
            took["gradient"] += seconds(self.gradient)
            took["default"] += seconds(self.default)
        self.frozen()
        took["frozen"] = self.timed
        return {name: statistics.median(times) for name, times in took.items()}


def seconds(call: Callable[[], None], times: int = 1) -> list[float]:
    """Processor time of some calls."""
    found = []
    for _ in range(times):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return found


def of_problem(number: int, pairs: tuple[tuple[int, int], ...], rounds: int) -> list[dict[str, Any]]:
    """The figures of one problem, printed as they come, in one thread."""
    torch.set_num_threads(1)
    problem, rows, took = PROBLEMS[number], [], 0.0
    for examples, references in pairs:
        if took > LONGEST and examples * references > 800:
            continue
        found = Turns(problem, examples, references).measure(rounds)
        rows.append(
            {"problem": problem.name, "goal": problem.goal, "examples": examples, "references": references, **found}
        )
        took = max(took, found["gradient"])
        ratios = [found[form] / found["gradient"] for form in ("default", "frozen")]
        print(
            f"{problem.name:45}{examples:4} x {references:<5}{found['gradient']:8.3f} s "
            f"{ratios[0]:6.2f}{ratios[1]:6.2f}  (goal {problem.goal})",
            flush=True,
        )
    return rows


def apart(number: int, *rest: Any) -> list[dict[str, Any]]:
    """``of_problem`` in a process of its own: with memory at hand that others left, a gradient takes half the time."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: list[dict[str, Any]] = pool.apply(of_problem, (number, *rest))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure, print as it goes, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="problems, by a regular expression; results are not kept")
    parser.add_argument("--rounds", type=int, default=5, help="calls of which the median is taken")
    parser.add_argument("--quick", action="store_true", help="two models, few pairs, one round; results are not kept")
    parser.add_argument("--output", type=Path, help="where to write the figures; of a full run benchmarks/results")
    options = parser.parse_args(arguments)
    only, pairs, rounds, measure = options.only, PAIRS, options.rounds, apart
    if options.quick:
        only, pairs, rounds, measure = "^LSTM 16→64, T=50$|MLP.*1 output", ((2, 3),), 1, of_problem
    threads, rows = torch.get_num_threads(), []
    try:
        for number, problem in enumerate(PROBLEMS):
            rows += measure(number, pairs, rounds) if re.search(only, problem.name) else []
    finally:
        torch.set_num_threads(threads)
    if options.output or not (options.only or options.quick):
        write(options.output or RESULTS, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()

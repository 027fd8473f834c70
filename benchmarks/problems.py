"""What is explained: models, rows, backgrounds, and who the players are."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


# ---------------------------------------------------------------------- models
class LastStep(nn.Module):
    """A recurrent network and a linear read-out of its last step."""

    def __init__(self, layer: type[nn.RNNBase], features: int, units: int, outputs: int = 1, **options: Any) -> None:
        super().__init__()
        self.recurrent = layer(features, units, batch_first=True, **options)
        self.read_out = nn.Linear(units * (2 if options.get("bidirectional") else 1), outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(self.recurrent(x)[0][:, -1])


class ConvolutionsFirst(nn.Module):
    """Convolution, pooling, an LSTM, and a linear read-out of its last step."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(features, 32, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2))
        self.last = LastStep(nn.LSTM, 32, units)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.front(x.transpose(1, 2)).transpose(1, 2))


class Attentive(nn.Module):
    """An LSTM whose steps are weighted by attention."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(features, units, batch_first=True)
        self.score = nn.Sequential(nn.Linear(units, units), nn.Tanh(), nn.Linear(units, 1))
        self.read_out = nn.Linear(units, 1)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.recurrent(x)[0]
        return self.read_out((torch.softmax(self.score(steps), 1) * steps).sum(1))


class Encoder(nn.Module):
    """A transformer encoder, and a linear read-out of the mean of its steps."""

    def __init__(self, features: int, width: int, steps: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.position = nn.Parameter(torch.randn(steps, width) / 2)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.read_out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(self.encoder(self.embed(x) + self.position).mean(1))


def perceptron(outputs: int) -> nn.Module:
    layers = [nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, outputs)]
    return nn.Sequential(*layers)


def pictures(outputs: int) -> nn.Module:
    return nn.Sequential(
        *[nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Flatten(), nn.Linear(800, 64), nn.ReLU(), nn.Linear(64, outputs)],
    )


# ---------------------------------------------------------------------- data
Draw = Callable[[int, int, int], tuple[Tensor, Tensor]]  # rows, steps, features: inputs and targets


def neighbours(rows: int, steps: int, features: int) -> tuple[Tensor, Tensor]:
    """Random numbers, and a target with interactions between neighbouring steps, and a kink."""
    x = torch.randn(rows, steps, features)
    products = (x[:, 1:, 0] * x[:, :-1, 1]).sum(1) / math.sqrt(steps)
    return x, products + (x.mean(2).sum(1) / math.sqrt(steps)).abs()


def weather(rows: int, steps: int, features: int) -> tuple[Tensor, Tensor]:
    """Days of Seattle's weather, each with those before it, standardized; and how warm the day after was."""
    days = _days()[:, :features]
    after = torch.randint(steps, len(days), (rows,))
    return torch.stack([days[day - steps : day] for day in after]), days[after, 0]


def columns(rows: int, steps: int, features: int) -> tuple[Tensor, Tensor]:
    """Random numbers without steps, and a target that they do not tell."""
    return torch.randn(rows, steps * features), torch.randn(rows)


def pixels(rows: int, steps: int, features: int) -> tuple[Tensor, Tensor]:
    """The same as pictures of one channel."""
    return torch.randn(rows, 1, steps, features), torch.randn(rows)


@cache
def _days() -> Tensor:
    from deepshap.datasets import seattle_weather  # not in the processes of peers, whose imports are timed

    data = seattle_weather()
    columns = np.stack([data.temp_max, data.temp_min, data.precipitation, data.wind], 1)
    return torch.as_tensor((columns - columns.mean(0)) / columns.std(0)).float()


def _train(model: nn.Module, batch: Callable[[], tuple[Tensor, Tensor]], batches: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(batches):
        x, target = batch()
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x)[:, 0], target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


# ---------------------------------------------------------------------- problems
@dataclass(frozen=True)
class Problem:
    """A model to make, and how much of what to explain; ``players`` are windows of steps, or else single inputs.

    ``windows`` says whether methods that treat the model as a black box are timed too.
    """

    name: str
    model: Callable[[], nn.Module]
    features: int
    steps: int
    examples: int = 8
    references: int = 100
    players: int = 10
    batches: int = 0  # to train for
    draw: Draw = neighbours
    windows: bool = True

    def make(self) -> Case:
        """Always the same."""
        torch.manual_seed(0)
        model = self.model()
        if self.batches:
            _train(model, lambda: self.draw(128, self.steps, self.features), self.batches)
        x, background = (self.draw(rows, self.steps, self.features)[0] for rows in (self.examples, self.references))
        return Case(model.eval().requires_grad_(False), x, background, self._groups())

    def _groups(self) -> np.ndarray:
        inputs = self.steps, self.features
        if self.players == math.prod(inputs):
            return np.arange(self.players).reshape(inputs)
        return np.broadcast_to(np.arange(self.steps)[:, None] * self.players // self.steps, inputs)


@dataclass
class Case:
    """Something to explain: x (examples, steps, features), background, and the player that each input belongs to."""

    model: nn.Module
    x: Tensor
    background: Tensor
    groups: np.ndarray

    @property
    def players(self) -> int:
        return int(self.groups.max()) + 1

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Every example beside every reference."""
        examples, references = len(self.x), len(self.background)
        return self.x.repeat_interleave(references, 0), self.background.repeat(examples, 1, 1)

    def by_player(self, values: np.ndarray) -> np.ndarray:
        """Sum attributions (examples, steps, features, outputs) over the inputs of each player, unless that is done."""
        if values.ndim == 3:
            return values
        sums = np.zeros((len(values), self.players, values.shape[-1]))
        np.add.at(sums, (slice(None), self.groups.ravel()), values.reshape(len(values), -1, values.shape[-1]))
        return sums

    def dumped(self) -> bytes:
        buffer = io.BytesIO()
        torch.save(self, buffer)
        return buffer.getvalue()

    @staticmethod
    def loaded(data: bytes) -> Case:
        return torch.load(io.BytesIO(data), weights_only=False)


SPEED = (
    Problem("LSTM 16→64, T=50", lambda: LastStep(nn.LSTM, 16, 64), 16, 50),
    Problem("LSTM 16→64, T=50, 10 outputs", lambda: LastStep(nn.LSTM, 16, 64, 10), 16, 50),
    Problem("LSTM 32→128, T=100", lambda: LastStep(nn.LSTM, 32, 128), 32, 100, windows=False),
    Problem("LSTM 8→32, T=500", lambda: LastStep(nn.LSTM, 8, 32), 8, 500, windows=False),
    Problem(
        "2-layer bidirectional LSTM 16→64, T=50",
        lambda: LastStep(nn.LSTM, 16, 64, num_layers=2, bidirectional=True),
        16,
        50,
        windows=False,
    ),
    Problem("GRU 16→64, T=50", lambda: LastStep(nn.GRU, 16, 64), 16, 50),
    Problem("CNN + LSTM 8→32→64, T=100", lambda: ConvolutionsFirst(8, 64), 8, 100),
    Problem("LSTM 16→64 with attention, T=50", lambda: Attentive(16, 64), 16, 50),
    Problem("transformer encoder 16→64, T=50", lambda: Encoder(16, 64, 50), 16, 50),
)
FIRST_CALLS = SPEED[0], SPEED[4], SPEED[5]
# What shap.DeepExplainer has rules for, beside others that explain single inputs.
HOME = (
    Problem("MLP 20→128→128", lambda: perceptron(1), 1, 20, draw=columns, windows=False),
    Problem("MLP 20→128→128, 3 outputs", lambda: perceptron(3), 1, 20, draw=columns, windows=False),
    Problem("2-D convolutions, 28 x 28", lambda: pictures(1), 28, 28, draw=pixels, windows=False),
    Problem("2-D convolutions, 28 x 28, 10 outputs", lambda: pictures(10), 28, 28, draw=pixels, windows=False),
)
SMALL = (
    replace(HOME[0], name="MLP 20→128→128, 1 x 10", examples=1, references=10),
    replace(HOME[0], name="MLP 20→128→128, 1 x 100", examples=1),
    replace(HOME[2], name="2-D convolutions, 28 x 28, 1 x 10", examples=1, references=10),
    replace(SPEED[0], name="LSTM 16→64, T=50, 1 x 10", examples=1, references=10),
    replace(SPEED[0], name="LSTM 16→64, T=50, 1 x 100", examples=1),
)
# The first is drawn: of the size of a real problem, where time is not overhead alone, on real data.
ACCURACY = (
    Problem(
        "LSTM 4→64 on weather, T=30, 10 windows",
        lambda: LastStep(nn.LSTM, 4, 64),
        4,
        30,
        references=50,
        batches=200,
        draw=weather,
    ),
    Problem("LSTM 2→16, T=5", lambda: LastStep(nn.LSTM, 2, 16), 2, 5, references=20, batches=400),
    Problem("GRU 2→16, T=5", lambda: LastStep(nn.GRU, 2, 16), 2, 5, references=20, batches=400),
    Problem("LSTM 2→16 with attention, T=5", lambda: Attentive(2, 16), 2, 5, references=20, batches=400),
    Problem("transformer encoder 2→16, T=5", lambda: Encoder(2, 16, 5), 2, 5, references=20, batches=400),
)
QUICK = Problem("LSTM 2→4, T=3", lambda: LastStep(nn.LSTM, 2, 4), 2, 3, examples=3, references=4, players=6, batches=5)


# ---------------------------------------------------------------------- truth
@torch.no_grad()
def outputs(case: Case) -> np.ndarray:
    """What attributions should sum to, (examples, outputs): the output minus its mean over the background."""
    return (case.model(case.x).double() - case.model(case.background).double().mean(0)).numpy()


@torch.no_grad()
def shapley_values(case: Case) -> np.ndarray:
    """Exact interventional Shapley values (examples, players, outputs), from all coalitions."""
    count, (x, r) = case.players, case.pairs()
    coalitions = np.array(list(itertools.product([False, True], repeat=count)))
    worth = []
    for coalition in coalitions:
        rows = torch.where(torch.as_tensor(coalition[case.groups]), x, r)
        worth.append(case.model(rows).double().unflatten(0, (len(case.x), -1)).mean(1).numpy())
    value = np.stack(worth)
    sizes, found = coalitions.sum(1), []
    for player in range(count):
        without = np.flatnonzero(~coalitions[:, player])
        joined = without + 2 ** (count - 1 - player)  # the first player is the highest binary digit
        weights = [1 / (count * math.comb(count - 1, size)) for size in sizes[without]]
        found.append(np.tensordot(weights, value[joined] - value[without], 1))
    return np.stack(found, 1)


def gap(values: np.ndarray, wanted: np.ndarray) -> float:
    """How far the sums of attributions (examples, players, outputs) miss, relative to the sum; the worst."""
    return float((np.abs(values.sum(1) - wanted) / np.abs(wanted)).max())


def distance(values: np.ndarray, exact: np.ndarray) -> float:
    """Distance to the exact values, relative to their length; the mean over examples and outputs."""
    return float((np.linalg.norm(values - exact, axis=1) / np.linalg.norm(exact, axis=1)).mean())

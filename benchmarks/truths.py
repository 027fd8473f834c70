"""Tasks whose salient cells are known, made anew from the descriptions in the papers, and networks trained on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.signal import lfilter
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    training: int
    explained: int
    references: int
    batches: int  # of 100 rows, to train for
    units: int
    steps: int
    features: int  # of the tasks with rare features and times


FULL = Size(training=1000, explained=16, references=20, batches=250, units=32, steps=50, features=50)
QUICK = Size(training=100, explained=3, references=4, batches=2, units=4, steps=12, features=8)


@dataclass
class Data:
    """Rows (rows, steps, features), labels of their steps (rows, steps), and which cells make the labels."""

    x: np.ndarray
    labels: np.ndarray
    salient: np.ndarray


@dataclass
class Case:
    """What is explained: the model's one output on ``x``; ``salient`` are the cells that matter in truth.

    ``score`` tells how well a network predicts new rows: the area under its receiver operating characteristic.
    """

    model: nn.Module
    x: Tensor
    salient: np.ndarray
    background: Tensor
    mean: Tensor
    score: float | None = None


Draw = Callable[[np.random.Generator, int, int], Data]
Make = Callable[[np.random.Generator, Size], Case]


# ---------------------------------------------------------------------- labels that a network learns
def hidden_states(random: np.random.Generator, rows: int, steps: int) -> Data:
    """Two hidden states, each of which names the feature that the labels depend on.

    Crabbé & van der Schaar 2021 and Enguehard 2023: a state stays with probability 0.95; features are normal with means and
    covariances of their own in each state; a label is 1 with probability sigmoid(2 x), x the feature that the state names.
    """
    turns = random.random((rows, steps)) > 0.95
    state = (random.integers(2, size=(rows, 1)) + turns.cumsum(1)) % 2
    means, named = np.array([[0.1, 1.6, 0.5], [-0.1, -0.4, -1.5]]), np.array([1, 2])
    covariances = np.tile(0.8 * np.eye(3), (2, 1, 1))
    covariances[[0, 1], 0, named] = covariances[[0, 1], named, 0] = 0.01
    noise = np.einsum("rsij,rsj->rsi", np.linalg.cholesky(covariances)[state], random.normal(size=(rows, steps, 3)))
    x, salient = means[state] + noise, np.arange(3) == named[state][..., None]
    odds = np.exp(2 * x[salient].reshape(rows, steps))
    return Data(x, random.random((rows, steps)) < odds / (1 + odds), salient)


def spikes(random: np.random.Generator, rows: int, steps: int, delay: int = 0) -> Data:
    """Three noisy features with spikes; labels are 1 from the first spike of the first one on, or ``delay`` steps later.

    Tonekaboni et al. 2020, with a delay Leung et al. 2023. The noise is a NARMA series of order 2 with a
    trend, brought to a range of 1, and spikes are 1.5 high, on three steps of a feature on average. The coefficients are those
    of the usual NARMA benchmark, since theirs make the series diverge. The first feature always has a spike: without one
    there is nothing to find.
    """
    x = np.stack([_narma(random, rows, steps, trend) for trend in (0.003, 0.065, 0.0)], -1)
    spiked = random.random(x.shape) < 3 / steps
    spiked[np.arange(rows), random.integers(steps - delay, size=rows), 0] = True
    x = x + 1.5 * spiked
    first = spiked[:, :, 0].argmax(1)
    salient = np.zeros(x.shape, bool)
    salient[np.arange(rows), first, 0] = True
    return Data(x, np.arange(steps) >= first[:, None] + delay, salient)


def _narma(random: np.random.Generator, rows: int, steps: int, trend: float) -> np.ndarray:
    u, y = random.uniform(0, 0.5, (rows, steps)), np.full((rows, steps), 0.3)
    for t in range(2, steps):
        last, before = y[:, t - 1], y[:, t - 2]
        y[:, t] = 0.3 * last + 0.05 * last * (last + before) + 1.5 * u[:, t - 2] * u[:, t - 1] + 0.1
    y += trend * np.arange(steps)
    return y / (y.max(1, keepdims=True) - y.min(1, keepdims=True))


class EveryStep(nn.Module):
    """A recurrent network and the log odds of the label of each step; their sum is what is explained."""

    def __init__(self, layer: type[nn.RNNBase], features: int, units: int) -> None:
        super().__init__()
        self.recurrent, self.read_out = layer(features, units, batch_first=True), nn.Linear(units, 1)

    def steps(self, x: Tensor) -> Tensor:
        return self.read_out(self.recurrent(x)[0])[..., 0]

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x).sum(1, keepdim=True)


def learned(layer: type[nn.RNNBase], draw: Draw, random: np.random.Generator, size: Size) -> Case:
    """A network that was trained on the labels, and new rows."""
    torch.manual_seed(int(random.integers(2**31)))
    training, new = draw(random, size.training, size.steps), draw(random, 200, size.steps)
    x, labels = _tensor(training.x), _tensor(training.labels)
    model = EveryStep(layer, x.shape[2], size.units)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(size.batches):
        batch = torch.as_tensor(random.integers(len(x), size=100))
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model.steps(x[batch]), labels[batch]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval().requires_grad_(False)
    score = float(roc_auc_score(new.labels.ravel(), model.steps(_tensor(new.x)).ravel().numpy()))
    at = slice(size.explained)
    return Case(model, _tensor(new.x[at]), new.salient[at], x[: size.references], x.mean(0, keepdim=True), score)


# ---------------------------------------------------------------------- regressors that are known
class SquaresOf(nn.Module):
    """The sum of the squares of some cells."""

    def __init__(self, cells: Tensor) -> None:
        super().__init__()
        self.register_buffer("cells", cells)

    def forward(self, x: Tensor) -> Tensor:
        return ((x * self.cells) ** 2).flatten(1).sum(1, keepdim=True)


def autoregressive(rare: str, random: np.random.Generator, size: Size) -> Case:
    """Autoregressive series, and the squares of a tenth of the features in half of the steps, or the other way round.

    Crabbé & van der Schaar 2021: 2 x_t + 0.5 x_(t-1) + 0.2 x_(t-2) + 0.1 x_(t-3) = 2 e_t.
    """
    steps, features = size.steps, size.features
    middle, half = slice(steps // 4, 3 * steps // 4), slice(features // 4, 3 * features // 4)
    cells = np.zeros((steps, features), np.float32)
    if rare == "features":
        cells[middle, random.permutation(features)[: max(1, features // 10)]] = 1
    else:
        length = max(1, steps // 10)
        start = random.integers(steps - length)
        cells[start : start + length, half] = 1
    noise = random.normal(size=(size.training + size.explained, steps, features))
    rows = _tensor(lfilter([2], [2, 0.5, 0.2, 0.1], noise, axis=1))
    training, x = rows[: size.training], rows[size.training :]
    salient = np.broadcast_to(cells > 0, x.shape)
    model = SquaresOf(torch.as_tensor(cells))
    return Case(model, x, salient, training[: size.references], training.mean(0, keepdim=True))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.as_tensor(np.asarray(array, np.float32))


TASKS: dict[str, Make] = {
    "hidden states, GRU": partial(learned, nn.GRU, hidden_states),
    "spikes, LSTM": partial(learned, nn.LSTM, spikes),
    "spikes, two steps later, LSTM": partial(learned, nn.LSTM, partial(spikes, delay=2)),
    "rare features": partial(autoregressive, "features"),
    "rare times": partial(autoregressive, "times"),
}

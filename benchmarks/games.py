"""Networks trained on fourteen games of 6 to 300 players, and their Shapley values.

Weather, the adding problem, logic, speech and text; LSTM, GRU, bidirectional, attention, transformer, TCN and MLP. The Shapley
values are computed from all coalitions up to 12 players, and else by permutation sampling to a stated noise. They are kept in
``results/games.npz``, and computed again where the network that is trained differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from problems import Attentive, Case, Encoder, LastStep, shapley_values, weather
from torch import Tensor, nn

KEPT = Path(__file__).parent / "results" / "games.npz"
SWEEPS = 24  # of the truth where players are many
Draw = Callable[[int], tuple[Tensor, Tensor]]


class Convolutions(nn.Module):
    """A temporal convolutional network: dilated causal convolutions."""

    def __init__(self, features: int, channels: int = 24) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(features if level == 0 else channels, channels, 3, dilation=2**level) for level in range(4)
        )
        self.read_out = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        signal = x.transpose(1, 2)
        for level, layer in enumerate(self.layers):
            signal = torch.relu(layer(nn.functional.pad(signal, (2 * 2**level, 0))))
        return self.read_out(signal[:, :, -1])


class Perceptron(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


# ---------------------------------------------------------------------- what is learned
def adding(steps: int) -> Draw:
    """Two of the numbers are marked; their sum is the target (Hochreiter and Schmidhuber 1997)."""

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        values, marks = torch.rand(rows, steps), torch.zeros(rows, steps)
        at = torch.stack([torch.randperm(steps)[:2] for _ in range(rows)])
        marks.scatter_(1, at, 1.0)
        return torch.stack([values, marks], 2), (values * marks).sum(1)

    return draw


def logic(steps: int, features: int) -> Draw:
    """Bits: exclusive ors of neighbouring ones, a conjunction of three and a majority."""

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        bits = torch.randint(2, (rows, steps, features)).float()
        flat = bits.flatten(1)
        different = (flat[:, 0] != flat[:, 1]).float() + (flat[:, 2] != flat[:, 3]).float()
        return bits, different + 2 * flat[:, 4] * flat[:, 5] * flat[:, -1] + (flat.mean(1) > 0.5).float()

    return draw


def parity(steps: int) -> Draw:
    """Signs, and the sign of the product of all but the last two."""

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        x = torch.randint(2, (rows, steps, 1)).float() * 2 - 1
        return x, x[:, : steps - 2, 0].prod(1) + 0.3 * x[:, -1, 0]

    return draw


def days(steps: int) -> Draw:
    """The weather of some days, and how warm the next is."""
    return lambda rows: weather(rows, steps, 4)


def speech(rows: int) -> tuple[Tensor, Tensor]:
    """Utterances of the vowel /ae/, and whether the third speaker says it."""
    from deepshap.datasets import japanese_vowels

    said = japanese_vowels().train
    at = torch.randint(len(said), (rows,))
    signal, speaker = torch.as_tensor(said.signal)[at], torch.as_tensor(said.speaker)[at]
    return signal, 2.0 * (speaker == 2).float() - 1


def text(rows: int) -> tuple[Tensor, Tensor]:
    """Twelve one-hot words of 20: praise and blame, turned round by a "not" just before, made stronger by a "very"."""
    words = torch.randint(20, (rows, 12))
    sign = (words < 4).float() - ((words >= 4) & (words < 8)).float()
    negated = 1 - 2 * nn.functional.pad((words == 8).float(), (1, 0))[:, :-1]
    strength = 1 + nn.functional.pad((words == 9).float(), (1, 0))[:, :-1]
    return nn.functional.one_hot(words, 20).float(), (sign * negated * strength).sum(1)


# ---------------------------------------------------------------------- games
@dataclass(frozen=True)
class Game:
    """A network to train, and who the players are.

    ``groups`` are numbers of players for each cell, made of (steps, features); cells by default.
    """

    name: str
    model: Callable[[], nn.Module]
    draw: Draw
    references: int = 40
    examples: int = 8
    batches: int = 300
    groups: Callable[[int, int], np.ndarray] | None = None

    def quick(self) -> Game:
        """The same, trained and explained little."""
        return replace(self, batches=2, examples=2, references=6)

    @cached_property
    def case(self) -> Case:
        """Always the same."""
        torch.manual_seed(0)
        model = self.model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        for _ in range(self.batches):
            x, target = self.draw(64)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x)[:, 0], target).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        x, background = (self.draw(rows)[0] for rows in (self.examples, self.references))
        shape = tuple(x.shape[1:])
        groups = np.arange(math.prod(shape)).reshape(shape) if self.groups is None else self.groups(*shape)
        return Case(model.eval().requires_grad_(False), x, background, groups)

    @cached_property
    def truth(self) -> tuple[np.ndarray, float]:
        """The Shapley values (examples, players), and their standard error relative to them.

        They are kept with the outputs of the network that they are of: another processor trains another network.
        """
        kept = dict(np.load(KEPT)) if KEPT.exists() else {}
        with torch.no_grad():
            outputs = self.case.model(torch.cat([self.case.x, self.case.background])).numpy()
        before = kept.get(f"{self.name}, outputs")
        if before is None or before.shape != outputs.shape or not np.allclose(before, outputs, rtol=1e-4, atol=1e-5):
            found, noise = self._computed()
            if self.batches <= 2:  # trained for a test
                return found, noise
            kept |= {self.name: found, f"{self.name}, noise": np.array(noise), f"{self.name}, outputs": outputs}
            np.savez_compressed(KEPT, **kept)
        return kept[self.name], float(kept[f"{self.name}, noise"])

    def _computed(self) -> tuple[np.ndarray, float]:
        if self.case.players <= 12:
            return shapley_values(self.case)[..., 0], 0.0
        found = np.stack([sweep(self.case, seed)[0] for seed in range(SWEEPS)])
        noise = np.linalg.norm(found.std(0, ddof=1)) / math.sqrt(SWEEPS) / np.linalg.norm(found.mean(0))
        return found.mean(0), float(noise)

    def distance(self, values: np.ndarray) -> float:
        """Distance of values (examples, players) to the truth, relative to it, without the noise of the truth."""
        truth, noise = self.truth
        square = np.square(values - truth).sum() / np.square(truth).sum() - noise**2
        return math.sqrt(max(square, 0.0))


@torch.no_grad()
def sweep(case: Case, seed: int, replicates: int | None = None, batch: int = 1024) -> tuple[np.ndarray, int]:
    """Antithetic permutation sampling in plain torch: an order and its reverse for so many references of each example.

    By default for all references. Returns the values (examples, players) and the number of points.
    """
    generator, players, groups = np.random.default_rng(seed), case.players, torch.as_tensor(np.array(case.groups))
    count = len(case.background) if replicates is None else replicates
    values = np.zeros((len(case.x), players))
    for row, x in enumerate(case.x):
        drawn = np.concatenate(
            [generator.permutation(len(case.background)) for _ in range(-(-count // len(case.background)))]
        )[:count]
        orders = np.stack([generator.permutation(players) for _ in range(count)])
        orders = np.concatenate([orders, orders[:, ::-1]])
        place = np.argsort(orders, 1)
        joined = torch.as_tensor(place[:, None] < np.arange(players + 1)[:, None]).flatten(0, 1)
        references = torch.as_tensor(np.repeat(np.tile(drawn, 2), players + 1))
        found = [
            case.model(torch.where(own[:, groups], x, case.background[reference]))[:, 0]
            for own, reference in zip(joined.split(batch), references.split(batch), strict=True)
        ]
        outputs = torch.cat(found).double().numpy().reshape(len(orders), players + 1)
        values[row] = np.take_along_axis(np.diff(outputs, axis=1), place, 1).mean(0)
    return values, len(case.x) * 2 * count * (players + 1)


def by_step(steps: int, features: int) -> np.ndarray:
    return np.repeat(np.arange(steps), features).reshape(steps, features)


def by_feature(steps: int, features: int) -> np.ndarray:
    return np.tile(np.arange(features), (steps, 1))


def by_thirds(steps: int, features: int) -> np.ndarray:
    return np.arange(features) + features * (3 * np.arange(steps) // steps)[:, None]


GAMES = (
    Game("parity, LSTM", lambda: LastStep(nn.LSTM, 1, 24), parity(6), batches=1500),
    Game("weather, GRU, features by thirds", lambda: LastStep(nn.GRU, 4, 48), days(30), groups=by_thirds),
    Game("logic, LSTM with attention", lambda: Attentive(2, 32), logic(6, 2), references=30, batches=800),
    Game("speech, LSTM, features", lambda: LastStep(nn.LSTM, 12, 32), speech, groups=by_feature),
    Game("text, LSTM, words", lambda: LastStep(nn.LSTM, 20, 32), text, groups=by_step, batches=600),
    Game("logic, MLP", lambda: Perceptron(20), logic(10, 2), references=100, batches=800),
    Game("logic, transformer", lambda: Encoder(2, 32, 12), logic(12, 2), references=30, batches=500),
    Game(
        "speech, bidirectional LSTM, steps",
        lambda: LastStep(nn.LSTM, 12, 24, bidirectional=True),
        speech,
        groups=by_step,
    ),
    Game(
        "weather, bidirectional GRU of two layers, steps",
        lambda: LastStep(nn.GRU, 4, 32, num_layers=2, bidirectional=True),
        days(30),
        groups=by_step,
        batches=150,
    ),
    Game("adding, LSTM", lambda: LastStep(nn.LSTM, 2, 32), adding(20), batches=1200),
    Game("weather, LSTM", lambda: LastStep(nn.LSTM, 4, 48), days(24)),
    Game("weather, TCN", lambda: Convolutions(4), days(30)),
    Game("adding, GRU", lambda: LastStep(nn.GRU, 2, 32), adding(60), batches=800, examples=4),
    Game("weather, LSTM, 75 days", lambda: LastStep(nn.LSTM, 4, 32), days(75), examples=4, batches=200),
)

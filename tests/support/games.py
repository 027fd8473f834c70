"""Games whose Shapley values are known, and the Shapley values of any model by their definition, in plain NumPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import deepshap
from deepshap.attribution import run
from deepshap.outputs import OutputSelection
from deepshap.sampling.choice import Costs
from deepshap.sampling.players import Players, parse_players


class Game(NamedTuple):
    """``call(x, ops)`` takes rows (n, players) and a framework's operations; ``values`` are written out by hand."""

    call: Callable[[Any, Any], Any]
    x: list[float]
    reference: list[float]
    values: list[float]


def column(x, at):
    return x[:, at : at + 1]


def three(x):
    return column(x, 0), column(x, 1), column(x, 2)


def _linear(x, ops):
    a, b, c = three(x)
    return 2 * a - 3 * b + 0.5 * c


def _product_of_two(x, ops):
    a, b, c = three(x)
    return a * b + 0 * c


def _product_of_three(x, ops):
    a, b, c = three(x)
    return a * b * c


def _largest(x, ops):
    a, b, c = three(x)
    return ops.maximum(ops.maximum(a, b), c)


def _exclusive_or(x, ops):
    a, b, c = three(x)
    return a + b - 2 * a * b + 0 * c


def _gloves(x, ops):
    left, right, other = three(x)
    return ops.minimum(left, right + other)


def _threshold(x, ops):
    a, b, c = three(x)
    return ops.maximum(a + b - 1, 0 * a) + 0 * c


GAMES = {
    # w (x - r)
    "linear": Game(_linear, [1.0, 2.0, 3.0], [0.0, 1.0, -1.0], [2.0, -3.0, 2.0]),
    # (x1 - r1) (x2 + r2) / 2, and the third is a dummy
    "product of two": Game(_product_of_two, [2.0, 3.0, 7.0], [1.0, -1.0, 4.0], [1.0, 6.0, 0.0]),
    # (x1 - r1) (2 x2 x3 + x2 r3 + r2 x3 + 2 r2 r3) / 6
    "product of three": Game(_product_of_three, [2.0, 3.0, 5.0], [1.0, 1.0, 2.0], [45 / 6, 66 / 6, 57 / 6]),
    # the airport game: whoever needs a stretch of the runway shares it
    "largest": Game(_largest, [1.0, 2.0, 4.0], [0.0, 0.0, 0.0], [1 / 3, 1 / 3 + 1 / 2, 1 / 3 + 1 / 2 + 2]),
    "exclusive or, both": Game(_exclusive_or, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    # from (0, 1) to (1, 0): 1 alone takes 1 away, 2 alone too, and the second brings it back
    "exclusive or, exchanged": Game(_exclusive_or, [1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]),
    "parity": Game(_product_of_three, [-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [-2 / 3, -2 / 3, -2 / 3]),
    # a left glove is worth something with one of two right ones
    "gloves": Game(_gloves, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [2 / 3, 1 / 6, 1 / 6]),
    "symmetric and dummy": Game(_threshold, [1.0, 1.0, 5.0], [0.0, 0.0, 0.0], [1 / 2, 1 / 2, 0.0]),
}


def shapley_values(call: Callable[[np.ndarray], np.ndarray], x: np.ndarray, references: np.ndarray, groups: np.ndarray):
    """By their definition: (players, k), of a row (...,), references (n, ...) and the number of each cell's player (...,).

    ``call`` takes rows and returns outputs (n, k).
    """
    players = [int(p) for p in np.unique(groups)]
    subsets = [s for size in range(len(players) + 1) for s in itertools.combinations(players, size)]
    worth = {frozenset(s): call(np.where(np.isin(groups, s), x, references)).mean(0) for s in subsets}
    values = []
    for player in players:
        value = 0.0
        for s in subsets:
            if player not in s:
                chance = (
                    math.factorial(len(s)) * math.factorial(len(players) - len(s) - 1) / math.factorial(len(players))
                )
                value = value + chance * (worth[frozenset([*s, player])] - worth[frozenset(s)])
        values.append(value)
    return np.stack(values)


def called(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A PyTorch model as a function of arrays, (rows, outputs)."""

    def call(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.as_tensor(rows)).double().numpy().reshape(len(rows), -1)

    return call


class Reader(nn.Module):
    """An LSTM over (rows, steps, features), two outputs."""

    def __init__(self, features: int = 2, units: int = 6) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(features, units, batch_first=True), nn.Linear(units, 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        out = self.lstm(x)[0]
        last = out[:, -1] if lengths is None else out[torch.arange(len(x)), lengths - 1]
        return self.head(last)


def reader(seed: int = 0, scale: float = 1.5, features: int = 2) -> Reader:
    """One with drawn weights, in float64; the larger the scale, the more its inputs interact."""
    model, generator = Reader(features).double().eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * 0.5 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return model


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1000 + seed))


class Measured(dict[Any, Any]):
    """Costs as if they had been measured: what is chosen does not depend on the clock then, and is soon chosen."""

    def __contains__(self, kind: object) -> bool:
        return True

    def __missing__(self, kind: Any) -> Costs:
        references = kind[-2]
        return Costs(0.0, 0.0, 1.8 / references, 0.37 / references)

    def get(self, kind: Any, default: Any = None) -> Costs:
        return self[kind]


def explainer(model: Any, background: Any, **options: Any) -> deepshap.DeepExplainer:
    made = deepshap.DeepExplainer(model, background, progress=False, **options)
    made._costs = Measured()
    return made


def totals(explanation: Any) -> np.ndarray:
    """Sums of all values of a row, (rows, ...outputs), over all inputs."""
    parts = [part for _, part in explanation.items()]
    return sum(p.values.sum(tuple(range(1, p.values.ndim - len(p.output_dims))), dtype=np.float64) for p in parts)


def misses(explanation: Any) -> float:
    """How far values are from adding up, relative to the outputs."""
    first: Any = next(part for _, part in explanation.items())
    wanted: np.ndarray = first.outputs - first.base_values
    return float(np.abs(totals(explanation) - wanted).max() / max(np.abs(first.outputs).max(), 1e-9))


def keras_twin(model: Reader, steps: int) -> Any:
    """The same network in Keras, with the same weights, in float64."""
    import keras

    lstm, head = model.lstm, model.head
    features, units = lstm.input_size, lstm.hidden_size
    x = keras.Input((steps, features), dtype="float64")
    layer = keras.layers.LSTM(units, dtype="float64")
    dense = keras.layers.Dense(head.out_features, dtype="float64")
    twin = keras.Model(x, dense(layer(x)))
    with torch.no_grad():
        layer.set_weights(
            [lstm.weight_ih_l0.T.numpy(), lstm.weight_hh_l0.T.numpy(), (lstm.bias_ih_l0 + lstm.bias_hh_l0).numpy()]
        )
        dense.set_weights([head.weight.T.numpy(), head.bias.numpy()])
    return twin


FRAMEWORKS = ("torch", "tensorflow")


def operations(framework: str) -> Any:
    """The module whose functions games call."""
    if framework == "torch":
        return torch
    import tensorflow

    return tensorflow


def array(framework: str, values: Sequence[Any] | np.ndarray) -> Any:
    """Rows as the framework has them, in float64."""
    values = np.asarray(values, np.float64)
    return torch.as_tensor(values) if framework == "torch" else operations(framework).constant(values)


def carried_out(made: deepshap.DeepExplainer, method: Any, X: Any, args: Any = None) -> Any:
    """The outcome of a method, as explainers run it."""
    with made.engine.session():
        examples, background = made.engine.read(X, args, made._background)
        return run(made.engine, made._request(examples, background, OutputSelection().columns, method=method))


def steps_of(shape: Sequence[int]) -> Players:
    return parse_players("steps", [tuple(shape)], [0], [None])

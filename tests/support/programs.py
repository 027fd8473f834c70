"""Random models: programs of a small grammar, as a model of torch and, by the slow oracle, in NumPy for a single pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 4
UNARY: dict[str, tuple[list[Callable[[Tensor], Tensor]], Callable[[Any], Any]]] = {
    "tanh": ([torch.tanh, Tensor.tanh, F.tanh, lambda v: v.clone().tanh_()], np.tanh),
    "sigmoid": ([torch.sigmoid, Tensor.sigmoid, lambda v: nn.Sigmoid()(v)], oracle.sigmoid),
    "relu": ([torch.relu, F.relu, lambda v: v.clamp(min=0), lambda v: F.relu(v.clone(), inplace=True)], oracle.relu),
    "exp": ([torch.exp, Tensor.exp], np.exp),
}
BINARY = ["product", "quotient", "sum", "joined"]
WHOLE = ["linear", "softmax", "norm", "greatest", "reversed"]
KINDS = [*UNARY, *BINARY, *WHOLE]


@dataclass
class Line:
    """One operation: what it is, on which values before it, in which spelling."""

    kind: str
    of: tuple[int, ...]
    spelling: int
    weight: np.ndarray


def drawn_program(seed: int, length: int = 6) -> list[Line]:
    """Draw a program. Values are vectors of ``WIDTH`` elements; value 0 is the input."""
    random = np.random.default_rng(seed)
    lines = []
    for position in range(1, length + 1):
        kind = str(random.choice(KINDS))
        of = tuple(int(k) for k in random.integers(0, position, 2))
        of = (max(of[0], position - 2), of[1])
        lines.append(Line(kind, of, int(random.integers(4)), 0.6 * random.normal(size=(WIDTH, WIDTH))))
    return lines


# ---------------------------------------------------------------------- in torch
class Program(nn.Module):
    """A program as a model; its last two values are its output."""

    def __init__(self, lines: list[Line]) -> None:
        super().__init__()
        self.lines = lines
        self.weights = nn.ParameterList(torch.from_numpy(line.weight.copy()) for line in lines)
        self.register_buffer("scale", torch.ones(1, dtype=torch.float64))
        self.factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for number, (line, weight) in enumerate(zip(self.lines, self.weights, strict=True)):
            values.append(self.after(number, in_torch(line, weight, values)))
        return torch.cat(values[-2:], -1) * self.scale * self.factor

    def after(self, number: int, value: Tensor) -> Tensor:
        """What tests put between the lines."""
        return value


def in_torch(line: Line, weight: Tensor, values: list[Tensor]) -> Tensor:
    """Run a line."""
    a, b = (values[k] for k in line.of)
    if line.kind in UNARY:
        spellings = UNARY[line.kind][0]
        return spellings[line.spelling % len(spellings)](a * 0.5)
    match line.kind:
        case "product":
            return [
                lambda: a * b,
                lambda: torch.mul(a, b),
                lambda: a.clone().mul_(b),
                lambda: torch.einsum("ni,ni->ni", a, b),
            ][line.spelling]()
        case "quotient":
            return a / (1 + b.square()) if line.spelling % 2 else torch.div(a, 1 + b * b)
        case "sum":
            return a + 2 * b if line.spelling % 2 else torch.add(a, b, alpha=2)
        case "joined":
            return torch.cat([a[:, : WIDTH // 2], b[:, WIDTH // 2 :]], 1)
        case "linear":
            return F.linear(a, weight) if line.spelling % 2 else a @ weight.T
        case "softmax":
            return a.softmax(-1) if line.spelling % 2 else torch.softmax(a, 1)
        case "norm":
            return F.layer_norm(a, (WIDTH,), eps=1e-2)
        case "greatest":
            return b + (a.amax(1, keepdim=True) if line.spelling % 2 else a.max(1, keepdim=True).values)
    return a.flip(1)


# ---------------------------------------------------------------------- by the oracle
def in_numpy(line: Line, weight: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    """Run a line on the vectors of one row."""
    a, b = (values[k] for k in line.of)
    if line.kind in UNARY:
        return UNARY[line.kind][1](a / 2)
    match line.kind:
        case "product":
            return a * b
        case "quotient":
            return a / (1 + b**2)
        case "sum":
            return a + 2 * b
        case "joined":
            return np.concatenate([a[: WIDTH // 2], b[WIDTH // 2 :]])
        case "linear":
            return weight @ a
        case "softmax":
            return np.exp(a) / np.exp(a).sum()
        case "norm":
            return (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + np.longdouble(1e-2))
        case "greatest":
            return b + a.max()
    return a[::-1]


def pulled(line: Line, weight: np.ndarray, sides: Any, m: np.ndarray) -> list[np.ndarray]:
    """Multipliers of both operands of a line, from those of its result."""
    (a, b), (a_ref, b_ref) = ([side[k] for k in line.of] for side in sides)
    nothing, half = np.zeros_like(m), WIDTH // 2
    if line.kind in UNARY:
        return [m * oracle.secant(UNARY[line.kind][1], a / 2, a_ref / 2) / 2, nothing]
    match line.kind:
        case "product":
            of_a, of_b = oracle.product(a, b, a_ref, b_ref)
            return [m * of_a, m * of_b]
        case "quotient":
            of_a, of_d = oracle.quotient(a, 1 + b**2, a_ref, 1 + b_ref**2)
            return [m * of_a, m * of_d * (b + b_ref)]
        case "sum":
            return [m, 2 * m]
        case "joined":
            return [np.concatenate([m[:half], nothing[half:]]), np.concatenate([nothing[:half], m[half:]])]
        case "linear":
            return [weight.T @ m, nothing]
        case "softmax":
            return [oracle.softmax(a, a_ref, m), nothing]
        case "norm":
            return [oracle.layer_norm(a, a_ref, np.ones(WIDTH), m, np.longdouble(1e-2)), nothing]
        case "greatest":
            return [greatest(a, a_ref) * m.sum(), m]
    return [m[::-1], nothing]


def greatest(a: np.ndarray, a_ref: np.ndarray) -> np.ndarray:
    """The oracle's multipliers of a maximum, on average over which of the greatest elements is taken for the one."""
    tied, tied_ref = np.flatnonzero(a == a.max()), np.flatnonzero(a_ref == a_ref.max())
    nudges = 1e-15 * np.eye(len(a), dtype=np.longdouble)
    return np.mean([oracle.greatest(a + nudges[i], a_ref + nudges[j]) for i in tied for j in tied_ref], 0)


def outputs(lines: list[Line], x: np.ndarray) -> np.ndarray:
    """The program's output for one row."""
    values = [oracle.extended(x)]
    for line in lines:
        values.append(in_numpy(line, oracle.extended(line.weight), values))
    return np.concatenate(values[-2:])


def attributions(lines: list[Line], x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Deep SHAP values of one pair, (elements, outputs)."""
    sides = []
    for start in (x, r):
        values = [oracle.extended(start)]
        for line in lines:
            values.append(in_numpy(line, oracle.extended(line.weight), values))
        sides.append(values)
    found = []
    for output in range(2 * WIDTH):
        multipliers = [np.zeros(WIDTH, np.longdouble) for _ in sides[0]]
        multipliers[len(lines) - 1 + output // WIDTH][output % WIDTH] = 1
        for position in range(len(lines), 0, -1):
            line = lines[position - 1]
            for k, part in zip(
                line.of, pulled(line, oracle.extended(line.weight), sides, multipliers[position]), strict=True
            ):
                multipliers[k] = multipliers[k] + part
        found.append(multipliers[0] * (sides[0][0] - sides[1][0]))
    return np.stack(found, -1)

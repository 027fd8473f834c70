"""One model of the zoo: how it is built, what it is given, and what comes of explaining it."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import deepshap
from deepshap.errors import DeepShapError

EXAMPLES, REFERENCES, OUTPUTS = 3, 4, 2
WARM, ROUNDS = 10, 7  # calls before those that are timed, and these
ROWS = EXAMPLES + REFERENCES
PAIRS = np.arange(EXAMPLES * REFERENCES) % ROWS
EXACT = {"float64": 1e-9, "float32": 1e-5}  # of the outputs, by the coarsest numbers that the model computes with


@dataclass
class Case:
    """A model, the rows that it is given (a tensor, a tuple of them, or a dict by keyword), and which output is meant.

    ``compiled``: the gradient is, so that explanations are timed within ``frozen()`` alone.
    ``single``: the model makes float32 tensors of its own, and cannot run in float64.
    """

    model: Callable[..., Any]
    inputs: Any
    output: Any = None
    single: bool = False
    compiled: ClassVar[bool] = False

    def prepared(self) -> Case:
        """In float64 and evaluation mode, with weights that are not zero, and batch norms that know the data."""
        if not isinstance(self.model, nn.Module):
            return self
        model = self.model if self.single else self.model.double()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter += 0.02 * torch.randn_like(parameter)
        floats = torch.float32 if self.single else torch.float64
        case = replace(self, inputs=of_rows(self.inputs, lambda v: v.to(floats) if v.is_floating_point() else v))
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.train()
            norm.momentum = 0.9
        for _ in range(2 if norms else 0):
            with torch.no_grad():
                case.outputs(case.inputs)
        model.eval()
        return case

    def outputs(self, inputs: Any) -> Any:
        """Run the model, and choose what is explained of what it returns."""
        if isinstance(inputs, dict):
            found = self.model(**inputs)
        else:
            found = self.model(*inputs) if isinstance(inputs, tuple) else self.model(inputs)
        if callable(self.output):
            return self.output(found)
        return found if self.output is None else found[self.output]

    def values(self) -> np.ndarray:
        """Outputs of all rows, (rows, outputs)."""
        with torch.no_grad():
            return np.asarray(self.outputs(self.inputs)).reshape(ROWS, -1)

    def gradient(self) -> Callable[[], Any] | None:
        """Forward pass and gradient of the inputs, or else of the weights, over as many rows as there are pairs."""

        def run() -> None:
            leaves: list[Tensor] = []

            def entering(values: Tensor) -> Tensor:
                rows = values[PAIRS].clone().requires_grad_(values.is_floating_point())
                leaves.extend([rows] if rows.requires_grad else [])
                return rows

            found = self.outputs(of_rows(self.inputs, entering))
            if found.requires_grad:
                wanted = leaves or [p for p in self.model.parameters() if p.requires_grad]  # type: ignore[attr-defined]
                torch.autograd.grad(found.sum(), wanted, allow_unused=True)

        try:
            run()
        except RuntimeError:  # it overwrites what autograd needs
            return None
        return run


@dataclass
class Finding:
    """What came of a model: exact, wrong, refused or crashed; why; the gap; time over that of a gradient, also in ``frozen()``.

    ``pairs``: both sides run on all pairs, which takes several times as long.
    """

    library: str
    name: str
    outcome: str
    why: str = ""
    gap: float | None = None
    over_gradient: float | None = None
    frozen: float | None = None
    pairs: bool = False


def normal(*shape: int) -> Tensor:
    """Rows of random numbers."""
    return torch.randn(ROWS, *shape)


def ids(length: int, largest: int = 20) -> Tensor:
    """Rows of ids from 3 on: 0 to 2 are left to padding and the like."""
    return torch.randint(3, largest, (ROWS, length))


def examine(library: str, name: str, build: Callable[[], Case], timed: bool = True) -> Finding:
    """Build a model, explain it, and compare the sums with the model's own outputs."""
    torch.manual_seed(0)
    try:
        case = build().prepared()
        explainer, gap = explained(case)
        over = over_gradient(case, explainer) if timed else (None, None)
    except DeepShapError as error:
        return Finding(library, name, "refused", f"{type(error).__name__}: {error}")
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Finding(library, name, "crashed", f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
    coarse = explainer.engine.eps > 1e-10
    outcome = "exact" if gap < EXACT["float32" if coarse else "float64"] else "wrong"
    return Finding(library, name, outcome, "", gap, *over, runs_on_pairs(explainer))


def runs_on_pairs(explainer: deepshap.DeepExplainer) -> bool:
    """Whether PyTorch runs the model on all pairs, since rows cannot be found in all that it computes."""
    return bool(getattr(explainer.engine, "_pairwise", False))


def of_rows(inputs: Any, change: Callable[[Any], Any]) -> Any:
    """Change every tensor of the inputs."""
    if isinstance(inputs, dict):
        return {name: change(value) for name, value in inputs.items()}
    return tuple(map(change, inputs)) if isinstance(inputs, tuple) else change(inputs)


def sides(case: Case) -> tuple[Any, Any]:
    """Examples and references, as the explainer takes them."""
    both = (of_rows(case.inputs, lambda v, s=side: v[s]) for side in (slice(EXAMPLES), slice(EXAMPLES, None)))
    x, r = (list(v) if isinstance(v, tuple) else v for v in both)
    return x, r


def explained(case: Case) -> tuple[deepshap.DeepExplainer, float]:
    """Explain; return the largest gap between attributions and outputs too, relative to the outputs."""
    x, r = sides(case)
    explainer = deepshap.DeepExplainer(case.model, r, output=case.output, progress=False)
    values, columns = explainer.shap_values(x, ranked_outputs=OUTPUTS)
    y = case.values()
    wanted = np.take_along_axis(y[:EXAMPLES] - y[EXAMPLES:].mean(0), columns, 1)
    assert np.abs(wanted).max() > 0, "the model does not answer to its input"
    each = values.values() if isinstance(values, dict) else values if isinstance(values, list) else [values]
    total = sum(v.reshape(EXAMPLES, -1, v.shape[-1]).sum(1) for v in each)
    return explainer, float(np.abs(total - wanted).max() / np.abs(y).max())


def over_gradient(case: Case, explainer: deepshap.DeepExplainer) -> tuple[float | None, float | None]:
    """Time of an explanation over that of the framework's own gradient, by default and within ``frozen()``."""
    (x, _), gradient = sides(case), case.gradient()
    if gradient is None:
        return None, None

    def explain() -> None:
        explainer.shap_values(x, ranked_outputs=1)

    own = median_time(gradient)
    default = None if case.compiled else median_time(explain) / own
    with explainer.frozen():
        return default, median_time(explain) / own


def median_time(run: Callable[[], Any]) -> float:
    """Seconds of the processor, of a call among others."""
    times = []
    for _ in range(WARM):
        run()
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)

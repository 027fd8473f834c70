"""What a model computes before its last softmax or sigmoid, and log-odds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...errors import NoHeadError
from ..interface import Engine, Points
from .inputs import take_output
from .names import resolve

HEADS = {"softmax", "sigmoid", "log_softmax", "logsigmoid"}
RESHAPED = {"squeeze", "unsqueeze", "view", "reshape", "flatten", "contiguous", "clone", "float", "double", "to"}
PICKED = {"__getitem__", "select", "narrow", "index_select"}


class _Seen(TorchFunctionMode):
    """Notes what goes into softmax and sigmoid, and what becomes of the results: their shapes, and which of them are picked."""

    def __init__(self, log_odds: bool) -> None:
        super().__init__()
        self.log_odds = log_odds
        # By results, which are kept: how to get what went in, and whether that has a meaning only together.
        self.before: dict[int, tuple[Tensor, Callable[[], Tensor], bool]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or not args or not isinstance(args[0], Tensor):
            return result
        spelling = resolve(func)
        name, source = (spelling.name if spelling else ""), self.before.get(id(args[0]))
        if name in HEADS:
            self._note(result, name, args, kwargs)
        elif source is not None and result is not args[0] and name in (RESHAPED if source[2] else RESHAPED | PICKED):
            self.before[id(result)] = (result, lambda: func(source[1](), *args[1:], **kwargs), source[2])
        return result

    def _note(self, result: Tensor, name: str, args: Any, kwargs: Any) -> None:
        argument, together = args[0], "softmax" in name
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None) if together else 0
        if axis is not None:
            others = self.log_odds and together and argument.shape[axis] > 1
            self.before[id(result)] = (
                result,
                lambda: against_others(argument, axis) if others else argument,
                together and not self.log_odds,
            )


class BeforeHead:
    """A model that returns what another one gives to its last softmax or sigmoid.

    ``otherwise``, where there is none: "refuse", "logits" (its outputs are logits) or "probabilities" (take their logarithm).
    """

    def __init__(self, model: Callable[..., Any], output: Any, otherwise: str, log_odds: bool) -> None:
        self.model, self.output, self.otherwise, self.log_odds = model, output, otherwise, log_odds

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the model, and return what its head got."""
        with _Seen(self.log_odds) as seen:
            result = take_output(self.model(*args, **kwargs), self.output)
        if id(result) in seen.before:
            return seen.before[id(result)][1]()
        if self.otherwise == "refuse":
            raise NoHeadError(REFUSED)
        logits = result.log() if self.otherwise == "probabilities" else result
        return against_others(logits) if self.log_odds and logits.ndim > 1 and logits.shape[-1] > 1 else logits


REFUSED = (
    "the logits are out of reach: the model does not end in a softmax or sigmoid that can be seen. Explain a function of its "
    "output, such as target=torch.logit of a probability, or a model without the last function. Outputs that are logits "
    "already need no target=."
)


def against_others(logits: Tensor, axis: int = -1) -> Tensor:
    """Log-odds of each class against all others together: ``logit_k - log(sum of exp(logit_j) over j != k)``."""
    logits = logits.movedim(axis, -1)
    count = logits.shape[-1]
    others = torch.tensor([[j for j in range(count) if j != k] for k in range(count)], device=logits.device)
    return (logits - logits[..., others].logsumexp(-1)).movedim(-1, axis)


def changed(model: Any, output: Any, change: Any, otherwise: str) -> tuple[Any, Any]:
    """A model, and ``output``, whose explained tensor is what a change makes of another's."""
    if callable(change):
        return model, lambda result: change(take_output(result, output))
    return BeforeHead(model, output, otherwise, change == "log-odds"), None


def look(before: Engine, one: Points) -> None:
    """Raise unless a head is seen while the model runs on a row."""
    before.native_outputs(one, 1)

"""The logits of a model that ends in a softmax or sigmoid, and log-odds."""

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


class _HeadRecorder(TorchFunctionMode):
    """Records the inputs of softmax and sigmoid, and the reshapes and selections of their results."""

    def __init__(self, log_odds: bool) -> None:
        super().__init__()
        self.log_odds = log_odds
        # By the id of a result, which is stored: how to compute the input, and whether it has a meaning only as a whole.
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
        argument, is_softmax = args[0], "softmax" in name
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None) if is_softmax else 0
        if axis is not None:
            log_odds = self.log_odds and is_softmax and argument.shape[axis] > 1
            self.before[id(result)] = (
                result,
                lambda: against_others(argument, axis) if log_odds else argument,
                is_softmax and not self.log_odds,
            )


class BeforeHead:
    """A model that returns the input of another model's last softmax or sigmoid.

    ``otherwise``, if there is none: "refuse", "logits" (its outputs are logits) or "probabilities" (take their logarithm).
    """

    def __init__(self, model: Callable[..., Any], output: Any, otherwise: str, log_odds: bool) -> None:
        self.model, self.output, self.otherwise, self.log_odds = model, output, otherwise, log_odds

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the model and return the input of its head."""
        with _HeadRecorder(self.log_odds) as recorder:
            result = take_output(self.model(*args, **kwargs), self.output)
        if id(result) in recorder.before:
            return recorder.before[id(result)][1]()
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
    """Return the log-odds of each class against all others: ``logit_k - log(sum of exp(logit_j) over j != k)``."""
    logits = logits.movedim(axis, -1)
    count = logits.shape[-1]
    others = torch.tensor([[j for j in range(count) if j != k] for k in range(count)], device=logits.device)
    return (logits - logits[..., others].logsumexp(-1)).movedim(-1, axis)


def changed(model: Any, output: Any, change: Any, otherwise: str) -> tuple[Any, Any]:
    """Return a model, and ``output``, whose explained tensor is the transformed output of another model."""
    if callable(change):
        return model, lambda result: change(take_output(result, output))
    return BeforeHead(model, output, otherwise, change == "log-odds"), None


def look(before: Engine, row: Points) -> None:
    """Raise an error unless the model has a head, in a run on one row."""
    before.native_outputs(row, 1)

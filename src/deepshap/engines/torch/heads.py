"""What a model computes before its last softmax or sigmoid, and log-odds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...errors import InputError
from .inputs import take_output
from .names import resolve

HEADS = {"softmax", "sigmoid", "log_softmax", "logsigmoid"}
RESHAPED = {"squeeze", "unsqueeze", "view", "reshape", "flatten", "contiguous", "clone", "float", "double", "to"}


class _Seen(TorchFunctionMode):
    """Notes what goes into softmax and sigmoid, and what becomes of the results' shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[
            int, tuple[Tensor, Tensor, str]
        ] = {}  # by results, which are kept: result, argument, function

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor) or not args or not isinstance(args[0], Tensor):
            return result
        spelling = resolve(func)
        name = spelling.name if spelling else ""
        if name in HEADS:
            self.before[id(result)] = (result, args[0], name)
        elif name in RESHAPED and id(args[0]) in self.before and result is not args[0]:
            _, argument, head = self.before[id(args[0])]
            self.before[id(result)] = (result, func(argument, *args[1:], **(kwargs or {})), head)
        return result


class BeforeHead(nn.Module):
    """A model that returns what another one gives to its last softmax or sigmoid.

    ``otherwise``, where there is none: "refuse", "logits" (its outputs are logits) or "probabilities" (take their logarithm).
    """

    def __init__(self, model: Callable[..., Any], output: Any, otherwise: str, log_odds: bool) -> None:
        super().__init__()
        self.model, self.output, self.otherwise, self.log_odds = model, output, otherwise, log_odds

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the model, and return what its head got."""
        with _Seen() as seen:
            result = take_output(self.model(*args, **kwargs), self.output)
        _, logits, head = seen.before.get(id(result), (None, result, ""))
        if not head and self.otherwise == "refuse":
            raise InputError(REFUSED)
        if not head and self.otherwise == "probabilities":
            logits = result.log()
        several = logits.ndim > 1 and logits.shape[-1] > 1 and "sigmoid" not in head
        return against_others(logits) if self.log_odds and several else logits


REFUSED = (
    "the logits are out of reach: the model does not end in a softmax or sigmoid that can be seen. Explain a function of its "
    "output, such as target=torch.logit of a probability, or a model without the last function."
)


def against_others(logits: Tensor) -> Tensor:
    """Log-odds of each class against all others together: ``logit_k - log(sum of exp(logit_j) over j != k)``."""
    count = logits.shape[-1]
    others = torch.tensor([[j for j in range(count) if j != k] for k in range(count)], device=logits.device)
    return logits - logits[..., others].logsumexp(-1)


def changed(model: Any, output: Any, change: Any, otherwise: str) -> tuple[Any, Any]:
    """A model, and ``output``, whose explained tensor is what a change makes of another's."""
    if callable(change):
        return model, lambda result: change(take_output(result, output))
    return BeforeHead(model, output, otherwise, change == "log-odds"), None

"""Handlers of PyTorch's layers; ``engines/handlers.py`` has the part that Keras shares."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import DeepShapError
from ...formulas.rules import Term
from ..handlers import HandlerRule, ModuleCall
from ..handlers import Handlers as AnyHandlers
from .calls import tensors
from .operations import CUSTOM, Operation, OperationRecord
from .pairing import mismatch
from .preserve import modules_of, named_modules


# ---------------------------------------------------------------------- the handlers of one engine
class Handlers(AnyHandlers):
    """The layers of one engine's model, and the handlers registered for them."""

    @cached_property
    def names(self) -> dict[nn.Module, str]:
        """Return the qualified name of every layer; "" is the model itself."""
        return layer_names(self.engine.model)

    def apply(self) -> None:
        """Make each handled layer one operation, and forget what was prepared without handlers."""
        self.__dict__.pop("names", None)  # the model may have other layers now
        operations = self.engine.operations
        for module, operation in list(operations.items()):
            if isinstance(operation.rule, _HandlerRule):
                del operations[module]
        for module, name in self.names.items():
            handler = self.handler_of(module, name)
            if handler is not None:
                operations[module] = Operation(CUSTOM, _HandlerRule(handler, module, name))
        self.engine.forget()


def layer_names(model: Any) -> dict[nn.Module, str]:
    """Return qualified names of all modules of a model, as torch names them; for Keras models by the names of their layers.

    For a function that holds one module, these are the names within that module. For several modules, each module's class
    name comes before the names within it, numbered if it occurs twice.
    """
    roots = [model] if isinstance(model, nn.Module) else _outermost(modules_of(model))
    if len(roots) == 1:
        return {module: name for name, module in named_modules(roots[0])}
    kinds = [type(root).__name__ for root in roots]
    names: dict[nn.Module, str] = {}
    for position, (root, kind) in enumerate(zip(roots, kinds, strict=True)):
        prefix = f"{kind}_{kinds[:position].count(kind)}" if kinds.count(kind) > 1 else kind
        names |= {module: name for name, module in named_modules(root, prefix)}
    return names


def _outermost(modules: list[nn.Module]) -> list[nn.Module]:
    inside = {id(part) for module in modules for _, part in named_modules(module, private=True) if part is not module}
    return [module for module in modules if id(module) not in inside]


# ---------------------------------------------------------------------- the rule that calls a handler
class _HandlerRule(HandlerRule):
    """Shows a record to a handler as a ``ModuleCall`` and checks the handler's result."""

    mismatch = staticmethod(mismatch)

    @staticmethod
    def row_sums(values: Tensor) -> np.ndarray:
        """Return the sum of each row, in float64."""
        return values.reshape(len(values), -1).sum(1, dtype=torch.float64).numpy(force=True)

    def __call__(self, record: OperationRecord, *multipliers: Tensor) -> list[Tensor | None]:
        call = self._call(record, multipliers)
        try:
            returned = self.handler(call)
        except DeepShapError:
            raise
        except Exception as error:
            raise self.raised(error) from error
        result = self.read(returned, call)
        sides = zip(call.inputs, call.reference_inputs, strict=True)
        active = [(m, pair) for m, pair, varies in zip(result, sides, call.varying, strict=True) if varies]
        input_terms = [(m, *pair) for m, pair in active if m is not None]
        output_terms = list(zip(multipliers, record.outputs, record.reference_outputs, strict=True))
        floats = (t.dtype for t in (*record.inputs, *record.outputs) if t.is_floating_point())
        names = [str(dtype).removeprefix("torch.") for dtype in floats]
        self.check_sums(_rows_first([*input_terms, *output_terms], record.pairs.rows), len(input_terms), names)
        return [m for m, _ in active]

    def _call(self, record: OperationRecord, multipliers: tuple[Tensor, ...]) -> ModuleCall:
        active_sides = zip(record.inputs, record.reference_inputs, strict=True)
        operands = zip(tensors((record.arguments, record.keywords)), record.varying, strict=True)
        sides = [
            (*(next(active_sides) if varies else (t, t)), varies)
            for t, varies in operands
            if varies or t.is_floating_point()
        ]
        inputs, reference_inputs, varying = (tuple(s) for s in zip(*sides, strict=True))
        return ModuleCall(
            self.module,
            self.name,
            inputs,
            reference_inputs,
            varying,
            record.outputs,
            record.reference_outputs,
            multipliers,
            record.arguments,
            record.keywords,
        )


def _rows_first(terms: list[Term], rows: int) -> list[list[Term]]:
    """Return the terms with their rows first, in every way that the shapes allow; else all rows as one."""
    axes = [[k for k, size in enumerate(value.shape) if size == rows] for _, value, _ in terms]
    if rows == 1 or not 1 <= math.prod(map(len, axes)) <= 64:
        return [[(m.reshape(1, -1), v.reshape(1, -1), r.reshape(1, -1)) for m, v, r in terms]]
    return [
        [(m.movedim(k, 0), v.movedim(k, 0), r.movedim(k, 0)) for k, (m, v, r) in zip(layout, terms, strict=True)]
        for layout in product(*axes)
    ]

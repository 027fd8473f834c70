"""Layers that are treated as a whole: their calls are marked while the model is traced, and found again in the graph."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ...errors import InputError
from .operations import Operation
from .state import replaced
from .step import OperationRecord, Run
from .values import Value

MARK = re.compile(r"deepshap_(enter|leave)_(\d+)(?:_\d+)?$")


@dataclass
class Region:
    """One call of a marked layer.

    Attributes
    ----------
    layer, name : the layer and its qualified name.
    operation : its rule; None for the layer whose inputs are explained.
    form : the arguments and keywords of the call; tensors among them enter in order.
    """

    layer: Any
    name: str
    operation: Operation | None
    form: Any
    inside: tuple[Any, ...] = ()

    def call(self, tensors: Sequence[Any]) -> list[Any]:
        """Call the layer on other tensors; its output tensors."""
        args, kwargs = self.filled(tensors)
        return [t for t in tf.nest.flatten(self.layer(*args, **kwargs)) if tf.is_tensor(t)]

    def filled(self, tensors: Sequence[Any]) -> Any:
        """Arguments and keywords with other tensors in them."""
        given = iter(tensors)
        return tf.nest.map_structure(lambda v: next(given) if tf.is_tensor(v) else v, self.form)


def marker(op: Any) -> tuple[bool, int] | None:
    """Whether an operation marks the beginning (or the end) of a region, and of which."""
    found = MARK.search(op.name) if op.type == "IdentityN" else None
    return (found[1] == "enter", int(found[2])) if found else None


@contextmanager
def marked(layers: Mapping[Any, tuple[str, Operation | None]], regions: list[Region]) -> Iterator[None]:
    """Mark the calls of layers; each call adds a region."""
    restore: list[Callable[[], Any]] = []
    try:
        for layer, (name, operation) in layers.items():
            restore.append(replaced(layer, "call", _marking(layer, layer.call, name, operation, regions)))
        yield
    finally:
        for undo in restore:
            undo()


@contextmanager
def scoped(layers: Mapping[Any, str], scopes: dict[str, str]) -> Iterator[None]:
    """Note the name scopes in which layers are called, for messages: TensorFlow numbers the layers' names anew."""
    restore: list[Callable[[], Any]] = []
    try:
        for layer, name in layers.items():
            restore.append(replaced(layer, "call", _noting(layer.call, name, scopes)))
        yield
    finally:
        for undo in restore:
            undo()


def _noting(call: Callable[..., Any], name: str, scopes: dict[str, str]) -> Callable[..., Any]:
    @functools.wraps(call)
    def noting(*args: Any, **kwargs: Any) -> Any:
        scope = tf.get_current_name_scope()
        if scope:
            scopes.setdefault(scope, name)
        return call(*args, **kwargs)

    return noting


def _marking(
    layer: Any, call: Callable[..., Any], name: str, operation: Operation | None, regions: list[Region]
) -> Callable[..., Any]:
    @functools.wraps(call)
    def marking(*args: Any, **kwargs: Any) -> Any:
        number = len(regions)
        region = Region(layer, name, operation, (args, kwargs))
        regions.append(region)
        args, kwargs = region.filled(_through(region.form, f"deepshap_enter_{number}"))
        region.inside = tuple(t for t in tf.nest.flatten((args, kwargs)) if tf.is_tensor(t))
        result = call(*args, **kwargs)
        if operation is None:
            return result
        left = iter(_through(result, f"deepshap_leave_{number}"))
        return tf.nest.map_structure(lambda v: next(left) if tf.is_tensor(v) else v, result)

    return marking


def _through(structure: Any, name: str) -> list[Any]:
    tensors = [t for t in tf.nest.flatten(structure) if tf.is_tensor(t)]
    if not tensors:
        raise InputError("a layer with a rule or handler of its own was called without a tensor.")
    return list(tf.identity_n(tensors, name=name))


class RegionStep(OperationRecord):
    """The call of a layer, as a rule sees it."""

    def __init__(self, run: Run, region: Region, operands: Sequence[Value], results: Sequence[Value]) -> None:
        self.run, self.region, self.operands, self.results = run, region, list(operands), list(results)
        self.name, self.place = type(region.layer).__name__, f"layer {region.name!r}"
        self.varying = tuple(v.active for v in operands)

    def evaluate(self, *inputs: Any) -> Any:
        """The layer as a function of its varying inputs alone; its output, or a list of several."""
        results = self.linearised(*inputs)
        return results[0] if len(results) == 1 else results

    def linearised(self, *inputs: Any) -> list[Any]:
        """The layer's outputs."""
        cast = [tf.cast(t, v.x.dtype) for t, v in zip(self._filled(inputs), self.operands, strict=True)]
        return [self.run.floating(t) for t in self.region.call(cast)]

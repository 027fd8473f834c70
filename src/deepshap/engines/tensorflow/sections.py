"""Loops by themselves: parts of a graph that XLA can compile, where kernels do what is around them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from graphlib import CycleError, TopologicalSorter
from typing import Any

import tensorflow as tf

from .graphs import Body, needed
from .operations import LOOPS


class Section:
    """Loops, their lists of tensors and what is between these, as a call of a function: plain tensors go in and out."""

    type = "PartitionedCall"

    def __init__(self, operations: Sequence[Any], read: set[int]) -> None:
        made = [t for op in operations for t in op.outputs]
        inside = {id(t) for t in made}
        given = {id(t): t for op in operations for t in op.inputs if id(t) not in inside}
        # Constants are made once more, since XLA wants to know sizes when it compiles.
        constants = [t.op for t in given.values() if t.op.type == "Const"]
        self.inputs = [t for t in given.values() if t.op.type != "Const"]
        self.outputs = [t for t in made if id(t) in read]
        self.body = Body(self.inputs, self.outputs, [*constants, *operations])
        self.name = next(op.name for op in operations if op.type in LOOPS)


def divided(body: Body) -> Body | None:
    """The same function with a section in the place of each loop; None without one, or if they could not run in turn."""
    groups = _groups(body.operations)
    if not groups:  # loops may be within functions that it calls
        return None
    units: list[Any] = [op for op in body.operations if not any(op in group for group in groups)]
    for group in groups:
        read = {id(t) for op in body.operations if op not in group for t in op.inputs} | {id(t) for t in body.outputs}
        units.append(Section([op for op in body.operations if op in group], read))
    makers = {id(t): unit for unit in units for t in unit.outputs}
    needs = {unit: [makers[id(t)] for t in unit.inputs if id(t) in makers] for unit in units}
    found = copy(body)
    try:
        found.operations = [*TopologicalSorter(needs).static_order()]
    except CycleError:
        return None
    return found


def _groups(operations: Sequence[Any]) -> list[set[Any]]:
    """The operations of each section; loops that are not apart share one."""
    groups: list[set[Any]] = []
    for op in (op for op in operations if op.type in LOOPS):
        group = _whole({op}, operations)
        while shared := [other for other in groups if other & group]:
            groups = [other for other in groups if other not in shared]
            group = _whole(group.union(*shared), operations)
        groups.append(group)
    return groups


def _whole(group: set[Any], operations: Sequence[Any]) -> set[Any]:
    """Some operations, those that share lists with them, and all that is between any two."""
    while (more := _between(_linked(group, operations), operations)) != group:
        group = more
    return group


def _linked(group: set[Any], operations: Sequence[Any]) -> set[Any]:
    lists = {id(t) for op in group for t in (*op.inputs, *op.outputs) if t.dtype == tf.variant}
    return group | {op for op in operations if any(id(t) in lists for t in (*op.inputs, *op.outputs))}


def _between(group: set[Any], operations: Sequence[Any]) -> set[Any]:
    after = set(group)
    for op in operations:
        if any(t.op in after for t in op.inputs):
            after.add(op)
    return after.intersection(needed(operations, group))

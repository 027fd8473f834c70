"""Loops and branches in the form of TensorFlow 1, as loops and branches in the form of functions.

TensorFlow lowers a loop to operations with edges that go back: for each of its variables an Enter, a Merge, a Switch, a
NextIteration and an Exit, and one LoopCond for all. A branch becomes Switches ahead of it and Merges behind it. Frozen graphs
hold this form by default. ``functional_outputs`` computes the outputs of such a graph again, and calls ``tf.while_loop`` and
``tf.cond`` in the places of these operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from .operations import emit

LOWERED = {"Enter", "Exit", "NextIteration", "LoopCond", "Switch", "Merge"}
Values = dict[str, Any]  # tensors of the new graph, by the names of those of the lowered graph


def functional_outputs(inputs: Sequence[Any], outputs: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Return the outputs of a lowered graph for these values of its inputs, in the graph that is being built."""
    return _Translation(outputs[0].graph).evaluate(outputs, {t.name: v for t, v in zip(inputs, values, strict=True)})


class _Loop:
    """The operations of a lowered loop; lists have one item for each of its variables."""

    def __init__(self, entries: Sequence[Any]) -> None:
        self.constants = [enter for enter in entries if enter.get_attr("is_constant")]
        self.enters = [enter for enter in entries if not enter.get_attr("is_constant")]
        self.merges = [_user(enter.outputs[0], "Merge") for enter in self.enters]
        self.switches = [_user(merge.outputs[0], "Switch") for merge in self.merges]
        self.nexts = [next(t.op for t in merge.inputs if t.op.type == "NextIteration") for merge in self.merges]
        self.condition = self.switches[0].inputs[1].op  # the LoopCond
        self.outputs = [switch.outputs[0] for switch in self.switches]  # the Exits pass them on

    @property
    def needed(self) -> list[Any]:
        """What the loop takes from outside."""
        return [enter.inputs[0] for enter in (*self.enters, *self.constants)]


class _Branch:
    """The operations of a lowered branch that ends in a Merge: its predicate, and its Switches."""

    def __init__(self, translation: _Translation, merge: Any) -> None:
        sides = [translation.switches_ahead(t.op) for t in merge.inputs]
        self.switches = [switch for switch, _ in (*sides[0], *sides[1])]
        if_true = next((k if port else 1 - k for k, side in enumerate(sides) for _, port in side), 0)
        self.if_true, self.if_false = merge.inputs[if_true], merge.inputs[1 - if_true]

    @property
    def needed(self) -> list[Any]:
        """What the branch takes from outside, the predicate first."""
        return [self.switches[0].inputs[1], *(switch.inputs[0] for switch in self.switches)]


class _Translation:
    """Computes tensors of a lowered graph in the graph that is being built."""

    def __init__(self, graph: Any) -> None:
        frames: dict[bytes, list[Any]] = {}
        for op in graph.get_operations():
            if op.type == "Enter":
                frames.setdefault(op.get_attr("frame_name"), []).append(op)
        self._frames = frames
        self._loops: dict[bytes, _Loop] = {}
        self._branches: dict[str, _Branch] = {}

    def _loop(self, exit_op: Any) -> _Loop:
        merge = exit_op.inputs[0].op.inputs[0].op
        frame = next(t.op for t in merge.inputs if t.op.type == "Enter").get_attr("frame_name")
        if frame not in self._loops:
            self._loops[frame] = _Loop(self._frames[frame])
        return self._loops[frame]

    def _branch(self, merge: Any) -> _Branch:
        if merge.name not in self._branches:
            self._branches[merge.name] = _Branch(self, merge)
        return self._branches[merge.name]

    def switches_ahead(self, op: Any) -> list[tuple[Any, int]]:
        """Return the Switches of the branch that an operation belongs to, with the outputs that lead to it: 1 if true."""
        found: dict[tuple[str, int], tuple[Any, int]] = {}
        waiting: list[tuple[Any, int]] = [(op, 0)]
        seen = set()
        while waiting:
            op, port = waiting.pop()
            if op.type == "Switch":
                found[op.name, port] = (op, port)
            elif op not in seen:
                seen.add(op)
                waiting += [(t.op, t.value_index) for t in self._operands(op)]
                waiting += [(control, 0) for control in op.control_inputs]
        return list(found.values())

    def _operands(self, op: Any) -> Sequence[Any]:
        """Return the tensors that an operation needs; those outside of the loop or branch that it ends."""
        if op.type == "Exit":
            return self._loop(op).needed
        if op.type == "Merge":
            return self._branch(op).needed
        return op.inputs

    def evaluate(self, tensors: Sequence[Any], values: Values) -> list[Any]:
        """Return tensors as they are computed in the graph that is being built; notes all that it computes in ``values``."""
        waiting = [*tensors]
        while waiting:
            tensor = waiting[-1]
            needed = [] if tensor.name in values else [t for t in self._operands(tensor.op) if t.name not in values]
            if not needed and tensor.name not in values:
                self._compute(tensor.op, values)
            if needed:
                waiting += needed
            else:
                waiting.pop()
        return [values[t.name] for t in tensors]

    def _compute(self, op: Any, values: Values) -> None:
        if op.type == "Exit":
            loop = self._loop(op)
            for switched, result in zip(loop.outputs, self._run_loop(loop, values), strict=True):
                values.update((t.name, result) for user in switched.consumers() for t in user.outputs)
        elif op.type == "Merge":
            values[op.outputs[0].name] = self._run_branch(self._branch(op), values)
        elif op.type in ("Enter", "Switch"):
            values.update((t.name, values[op.inputs[0].name]) for t in op.outputs)
        else:
            results = emit(op, [values[t.name] for t in op.inputs])
            values.update((t.name, result) for t, result in zip(op.outputs, results, strict=True))

    def _run_loop(self, loop: _Loop, values: Values) -> Sequence[Any]:
        fixed = {enter.outputs[0].name: values[enter.inputs[0].name] for enter in loop.constants}

        def proceeds(*variables: Any) -> Any:
            merged = {m.outputs[0].name: v for m, v in zip(loop.merges, variables, strict=True)}
            return self.evaluate(loop.condition.inputs, {**values, **fixed, **merged})[0]

        def turn(*variables: Any) -> list[Any]:
            merged = {m.outputs[0].name: v for m, v in zip(loop.merges, variables, strict=True)}
            switched = {s.outputs[1].name: v for s, v in zip(loop.switches, variables, strict=True)}
            return self.evaluate([n.inputs[0] for n in loop.nexts], {**values, **fixed, **merged, **switched})

        before = [values[enter.inputs[0].name] for enter in loop.enters]
        try:
            return tf.while_loop(proceeds, turn, before)
        except ValueError:  # the sizes of a variable change from turn to turn
            shapes = [tf.TensorShape([None] * v.shape.rank if v.shape.rank is not None else None) for v in before]
            return tf.while_loop(proceeds, turn, before, shape_invariants=shapes)

    def _run_branch(self, branch: _Branch, values: Values) -> Any:
        def side(output: Any, port: int) -> Callable[[], Any]:
            def run() -> Any:
                switched = {s.outputs[port].name: values[s.inputs[0].name] for s in branch.switches}
                return self.evaluate([output], {**values, **switched})[0]

            return run

        return tf.cond(values[branch.needed[0].name], side(branch.if_true, 1), side(branch.if_false, 0))


def _user(tensor: Any, kind: str) -> Any:
    """Return the operation of a kind that uses a tensor."""
    return next(op for op in tensor.consumers() if op.type == kind)

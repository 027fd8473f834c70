"""Single entries of values, as ``x[:, t]`` in loops over time: their multipliers go past autograd.

That puts each among zeros for all other entries, of every pair, and adds these up: as much work for each step as there are steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._compat import entry_of
from .nodes import for_one, for_several, made_by, several_at_once

BESIDE_SELECTION = (
    "SliceBackward0",
    "UnsqueezeBackward0",
    "AliasBackward0",
)  # x[:, -1, :4] and x[:, -1, None] select too
_ENTRIES, _TAKEN = "deepshap_entries", "deepshap_taken"  # what nodes are marked with


Selection = tuple[int, int, Tensor]  # axis, index and multiplier


class Entries:
    """Takes multipliers of entries of a node's output, in some position and of some sizes, to add them all at once.

    In each backward pass the first one goes by autograd all the same: that calls for the others only where something comes.
    """

    def __init__(self, position: int, sizes: Sequence[int]) -> None:
        self._position, self._sizes = position, sizes
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._begun = False
        self._selections: list[Selection] = []

    def take(self, selection: Selection) -> bool:
        """Take a multiplier, if autograd has been given another one."""
        if self._begun:
            self._selections.append(selection)
        begun, self._begun = self._begun, True
        return begun

    def added(self, given: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        """What reaches the node, with what came past autograd."""
        selections = self._selections
        self.forget()
        own = given[self._position]
        if not selections:
            return given
        assert own is not None, "autograd was given a multiplier for the first one"

        def find(rows: list[Any]) -> list[Any]:
            whole = rows[0].clone(memory_format=torch.contiguous_format)
            for (axis, index, _), m in zip(selections, rows[1:], strict=True):
                whole.select(axis + 1, index).add_(m)
            return [whole]

        parts = [own, *(m for _, _, m in selections)]
        (whole,) = for_several("a selection", find, parts) if several_at_once() else for_one(find, parts)
        return *given[: self._position], whole, *given[self._position + 1 :]


class Selections:
    """All entries that a run takes of values."""

    def __init__(self) -> None:
        self._entries: list[Entries] = []

    def take_apart(self, result: Any) -> bool:
        """If a tensor, or each of several, is an entry of another, hand on its multiplier by itself; it remains a view.

        A recurrent network's rule takes that as it is, and other nodes get all of them together.
        """
        if isinstance(result, tuple):
            return sum(map(self.take_apart, result)) == len(result)
        select: Any = result.grad_fn if isinstance(result, Tensor) else None
        while select is not None and select.name() in BESIDE_SELECTION:
            select = select.next_functions[0][0]
        if select is None or select.name() != "SelectBackward0" or (entry := entry_of(select)) is None:
            return False
        marks = select.metadata  # a hook that held the node itself would keep the whole run until garbage is collected
        if _TAKEN in marks:
            return True
        marks[_TAKEN] = True
        (sizes, axis, index), (node, position) = entry, select.next_functions[0]
        step = made_by(node)
        taken = self._of(node, position, sizes) if position or step is None else step

        def take(given: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
            if (own := marks.get(_ENTRIES)) is not None:  # entries of this entry
                given = own[0].added(given)
            past = given[0] is not None and taken.take((axis, index, given[0]))
            return (None,) if past else given

        select.register_prehook(take)
        return True

    def _of(self, node: Any, position: int, sizes: Sequence[int]) -> Entries:
        known: dict[int, Entries] = node.metadata.setdefault(_ENTRIES, {})
        if position not in known:
            known[position] = Entries(position, sizes)
            if _TAKEN not in node.metadata:  # else it asks for them before it hands on its own multiplier
                node.register_prehook(known[position].added)
            self._entries.append(known[position])
        return known[position]

    def forget(self) -> None:
        """Forget what a backward pass left that failed."""
        for entries in self._entries:
            entries.forget()

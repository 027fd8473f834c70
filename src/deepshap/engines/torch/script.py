"""How the calls of a run were followed: one that makes the same calls again goes the same ways, without a search for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .operations import Operation


class Way(NamedTuple):
    """How a call is followed: what runs, which operands vary, and the rule by which it goes back; None: it is linear in them.

    ``composed``: it is made of calls that are followed themselves.
    """

    function: Callable[..., Any]
    rule: Operation | None = None
    varying: tuple[bool, ...] = ()
    composed: bool = False


class Line(NamedTuple):
    """A call that was followed.

    Attributes
    ----------
    function, told : what was called, and what it took, as a witness tells it.
    name, operation : what it is.
    way : how it is followed.
    active, loose : of each tensor that it takes, whether it depends on the input, and whether it is a constant that is not held
        by the model.
    apart : whether what it returns are entries of another value.
    """

    function: Callable[..., Any]
    told: Any
    name: str
    operation: Operation
    way: Way
    active: tuple[bool, ...]
    loose: tuple[bool, ...]
    apart: bool


class Script:
    """The calls of a run in the order in which they began, those that others are composed of among them.

    ``operations`` are those that have rules of their own. ``is_whole``: the run came to its end. ``program`` makes the calls
    again (``replay.py``); None where it is not known or, if that ``is_settled``, cannot.
    """

    def __init__(self, operations: Mapping[Any, Operation]) -> None:
        self.operations, self.is_whole, self.is_settled = operations, False, False
        self.program: Any = None
        self._lines: list[Line | None] = []  # None for what is looked at anew each time
        self.begin()

    def begin(self) -> None:
        """Begin a run."""
        if not self.is_whole:
            self._lines = []
        self._go_to(0)

    def _go_to(self, place: int) -> None:
        self._at = place
        self.next = self._lines[place] if place < len(self._lines) else None  # what the next call was

    def open(self) -> int:
        """A call begins; returns its place."""
        place = self._at
        if not self.is_whole:
            self._lines.append(None)
        self._go_to(place + 1)
        return place

    def close(self, place: int, line: Line) -> None:
        """A call is over."""
        self._lines[place] = line

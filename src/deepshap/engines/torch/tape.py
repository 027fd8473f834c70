"""What a run of the model leaves behind, for the other side to be compared with it."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from ...errors import UnsupportedOperationError
from . import _compat
from .batch_axes import Orders, beside, equal_or_nan, unmerged
from .calls import Call, place_of_call
from .operations import OperationRecord, Pairs, TraceMismatch
from .tree import replace

COUNTED = (
    " (lengths of packed sequences may stay a tensor; where tokens of each expert are counted, let it find its own by a mask, "
    "torch.where(chosen == expert), instead of slices of sorted ones)"
)


IN_NUMPY = {torch.float32, torch.float64, torch.int64}  # and in most models


@dataclass
class Constants:
    """Tensors that an active call takes as constants. ``overwritten``: the model writes to one of them later.

    ``fingerprints`` tell what they held. Of weights there are none: all are compared in every call, see ``background.py``.
    """

    name: str
    tensors: tuple[Tensor, ...]
    fingerprints: tuple[Hashable, ...]
    overwritten: bool = False


@dataclass
class Tape:
    """What the reference run leaves behind: every active call in order, and the steps of the nonlinear ones.

    The example side keeps one too, for which ``reference`` is what it is compared with. ``weights`` are the ids of the parameters
    of the model's modules.
    """

    pairs: Pairs
    reference: Tape | None = None
    inside: list[str] = field(default_factory=list)  # names of the composed operations that are running
    takes_python_values: bool = False  # whether Python gets numbers of what depends on the input
    calls: list[tuple[str, str, str]] = field(default_factory=list)  # name, name that the user knows, place
    steps: list[OperationRecord] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    numbers: list[tuple[str, list[Any]]] = field(default_factory=list)
    constants: list[Constants] = field(default_factory=list)
    dtypes: set[torch.dtype] = field(default_factory=set)
    weights: frozenset[int] = frozenset()
    orders: Orders = field(default_factory=Orders)
    nbytes: int = 0
    memory: int = 0
    _constants_at: defaultdict[int, list[Constants]] = field(default_factory=lambda: defaultdict(list))
    _numbered: int = 0  # how many calls have had their numbers compared
    _taken: int = 0  # and their constants

    @property
    def names(self) -> list[str]:
        """Names of all active calls."""
        return [name for name, _, _ in self.calls]

    def known_as(self, name: str) -> str:
        """The name of the operation that the model calls, of which a call may be a part."""
        return self.inside[0] if self.inside else name

    def call(self, name: str) -> str:
        """Note one active call, and check that the reference made the same one. Returns its place, there if it did."""
        if self.reference is None:
            made = name, self.known_as(name), place_of_call()
        else:
            position, recorded = len(self.calls), self.reference.calls
            if position >= len(recorded) or recorded[position][0] != name:
                other = "is finished" if position >= len(recorded) else "calls {1} at {2}".format(*recorded[position])
                raise TraceMismatch(
                    f"the example calls {self.known_as(name)} at {place_of_call()}, where the reference {other}"
                )
            made = recorded[position]
        self.calls.append(made)
        return made[2]

    def finish(self) -> None:
        """Check that the reference made no further calls."""
        if self.reference is not None and len(self.calls) < len(self.reference.calls):
            _, name, place = self.reference.calls[len(self.calls)]
            raise TraceMismatch(f"the reference goes on with {name} at {place}, the example is finished")

    def must_be_same(self, name: str, value: Any, what: str) -> None:
        """Record a value that must not differ between the sides, or compare it with the recorded one."""
        self.takes_python_values = True
        place = self.call(name)
        if not self.is_same(name, value):
            several = not isinstance(value, (bool, int, float, complex))
            raise TraceMismatch(f"{what} at {place} differs between example and reference{COUNTED if several else ''}")

    def is_same(self, name: str, value: Any) -> bool:
        """Record a value, or tell whether it equals the recorded one."""
        position = len(self.values)
        self.values.append(value if self.reference is None else None)
        if self.reference is None:
            return True
        if position >= len(self.reference.values):
            raise TraceMismatch(f"{self.known_as(name)} at {place_of_call()} has no counterpart on the reference side")
        return _equal(value, self.reference.values[position], self._pairs_at(position, self.orders.values))

    def _pairs_at(self, position: int, orders: Sequence[int]) -> Pairs:
        """The pairs, with the order of rows at a place."""
        return self.pairs._replace(outer=orders[position]) if position < len(orders) else self.pairs

    # ------------------------------------------------------------------ what calls take: numbers and constants
    def takes_numbers(self, name: str, given: list[Any]) -> None:
        """Note the numbers that an active call takes, or check that they are the recorded ones, but for numbers of rows."""
        own = ["nan" if v != v else v for v in given] if given else given
        if self.reference is None:
            self.numbers.append((name, own))
            return
        position, self._numbered = self._numbered, self._numbered + 1
        if position >= len(self.reference.numbers):
            return
        other, recorded = self.reference.numbers[position]
        if other == name and own != recorded and not self._as_rows(own, recorded):  # other calls are found next
            raise TraceMismatch(
                f"{self.known_as(name)} at {place_of_call()} takes other numbers ({_listed(own)}) than for the reference "
                f"({_listed(recorded)}), which depend on the input, or on state that the model changes when it runs"
            )

    def _as_rows(self, own: list[Any], recorded: list[Any]) -> bool:
        """Whether numbers differ as those of the rows do."""
        n, b = self.pairs.grid
        if len(own) != len(recorded) or not self.pairs.all_pairs:
            return False
        return all(x == r or (type(x) is type(r) is int and x * b == r * n) for x, r in zip(own, recorded, strict=True))

    def with_constants(self, call: Call, passive: list[Tensor]) -> Call:
        """Compare what a call takes as constants with what it took on the reference side.

        Those that the model writes to later are replaced by copies, since multipliers need their values.
        """
        if passive and (written := {id(t) for t in call.written()}):
            passive = [t for t in passive if id(t) not in written]
        if not self.takes(call.name, passive):
            return call
        kept = {id(t): t.clone() for t in passive}
        return call.with_arguments(*replace((call.args, call.kwargs), lambda t: kept.get(id(t), t)))

    def takes(self, name: str, passive: Sequence[Tensor]) -> bool:
        """Note what an active call takes as constants; returns whether the model writes to one of them later.

        They have to be the same on both sides. Where they are not, they depend on the input behind autograd's back.
        """
        if self.reference is None:
            own = Constants(name, tuple(passive), tuple(map(self._print_of, passive)))
            for tensor in passive:
                self._constants_at[_address(tensor)].append(own)
            self.constants.append(own)
            return False
        position, self._taken = self._taken, self._taken + 1
        if position >= len(self.reference.constants):
            return False  # where the calls differ, that is found next
        recorded, pairs = self.reference.constants[position], self._pairs_at(position, self.orders.constants)
        if passive and recorded.name == name and len(recorded.tensors) == len(passive):
            for tensor, other, held in zip(passive, recorded.tensors, recorded.fingerprints, strict=True):
                if tensor is not other or held is not None:  # weights are those of the other side
                    self._check_constant(name, tensor, other, held, pairs)
        return recorded.overwritten

    def _print_of(self, tensor: Tensor) -> Hashable:
        return None if is_weight(tensor, self.weights) else fingerprint(tensor)

    def _check_constant(self, name: str, tensor: Tensor, recorded: Tensor, held: Hashable, pairs: Pairs) -> None:
        if tensor.dim() != recorded.dim() or tensor.layout != torch.strided:
            return  # what differs in form is found by the calls
        own, other = tensor.detach(), recorded.detach()
        if own.shape == other.shape and own.data_ptr() == other.data_ptr() and own.stride() == other.stride():
            same = held is None or fingerprint(own) == held
        else:
            same = _agree(*_apart(own, other, pairs)) or self._count_rows(own, other)
        if same:
            return
        # it may differ with the number of rows: where the sides ran on different ones, they are run on the same next
        kind = TraceMismatch if self.pairs.all_pairs else UnsupportedOperationError
        raise kind(_constant_message(self.known_as(name)))

    def _count_rows(self, own: Tensor, other: Tensor) -> bool:
        """Whether constants are to one another as the numbers of rows, as of packed sequences that end together.

        What depends on them depends on the batch, which the outputs of single rows tell.
        """
        n, b = self.pairs.grid
        return self.pairs.all_pairs and own.shape == other.shape and torch.equal(own * b, other * n)

    def overwrites(self, target: Tensor) -> None:
        """Keep the old values of constants whose memory the model is about to write to."""
        for constants in self._constants_at.pop(_address(target), ()):
            constants.overwritten = True
            own = _address(target)
            constants.tensors = tuple(t.clone() if _address(t) == own else t for t in constants.tensors)


def _listed(numbers: list[Any]) -> str:
    return ", ".join(map(str, numbers[:8]))


def base_of(tensor: Tensor) -> Tensor:
    """What a tensor is a view of, or itself."""
    base: Tensor | None = _compat.base_of(tensor)
    return tensor if base is None else base


def is_weight(tensor: Tensor, known: Container[int]) -> bool:
    """Whether it is one of the parameters whose ids are known, or a view of one."""
    base = base_of(tensor)
    return isinstance(base, Parameter) and id(base) in known


def fingerprint(tensor: Tensor) -> Hashable:
    """What tells whether a tensor holds what it held, however it was written to; None for one that holds nothing."""
    plain = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)
    if not plain or not tensor.numel():
        return None
    if tensor.is_cpu and tensor.dtype in IN_NUMPY and tensor.is_contiguous() and not tensor.is_neg():
        return zlib.crc32(tensor.detach().numpy().data)
    values = tensor.detach().resolve_conj().resolve_neg()
    if values.device.type == "cpu":
        flat = values.contiguous().as_strided((values.numel(),), (1,))  # the stride of a single number may be any
        return zlib.crc32(flat.view(torch.uint8).numpy().data)
    rows = torch.view_as_real(values).flatten(-2) if values.is_complex() else values
    sums = [rows.reshape(len(rows) if rows.dim() else 1, -1).sum(k, dtype=torch.float64) for k in (0, 1)]
    weighted = [s @ torch.arange(1, len(s) + 1, dtype=s.dtype, device=s.device) for s in sums]
    return tuple(torch.stack([sums[0].sum(), *weighted]).tolist())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else id(tensor)


def _apart(own: Tensor, other: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Constants whose rows have an axis of their own, if they have rows."""
    try:
        return unmerged(own, other, pairs) if pairs.all_pairs else (own, other)
    except TraceMismatch:
        return own, other


def _agree(own: Tensor, other: Tensor) -> bool:
    """Whether constants are the same; for different numbers of rows, that all rows are alike, or numbers of rows."""
    if own.shape == other.shape:
        return equal_or_nan(own, other)
    common = [min(sizes) for sizes in zip(own.shape, other.shape, strict=True)]
    if not own.dtype.is_floating_point and own.dtype != torch.bool:
        return equal_or_nan(_first(own, common), _first(other, common))
    one = _first(other, [n if own.shape[k] == other.shape[k] else 1 for k, n in enumerate(common)])
    return all(equal_or_nan(side, one.expand_as(side)) for side in (own, other))


def _constant_message(name: str) -> str:
    return (
        f"a tensor that {name} at {place_of_call()} takes as a constant differs between example and reference: it depends on "
        "the explained input through code that torch does not follow (NumPy, another thread, a C++ extension, memory that "
        "is shared, a custom function that calls its output non-differentiable), or on random numbers or state of the "
        "model. Compute it with torch's functions, or pass it as additional_forward_args."
    )


def _first(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    for axis, size in enumerate(sizes):
        tensor = tensor.narrow(axis, 0, size)
    return tensor


def _equal(value: Any, recorded: Any, pairs: Pairs) -> bool:
    if isinstance(value, Tensor):
        if not isinstance(recorded, Tensor):
            return False
        if value.shape == recorded.shape:
            return torch.equal(value, recorded)
        if not pairs.all_pairs:
            return False
        x, r = beside(*unmerged(value, recorded, pairs), pairs)
        return bool((x == r).all())
    if isinstance(value, np.ndarray):
        return np.array_equal(value, recorded)
    if isinstance(value, (tuple, list)) and isinstance(recorded, (tuple, list)):
        return len(value) == len(recorded) and all(_equal(*two, pairs) for two in zip(value, recorded, strict=True))
    return bool(value == recorded)

"""The tape: the calls, constants and operation records of a run, and the comparison of the two runs."""

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
from .batch_axes import RowOrders, broadcast_pairs, equal_or_nan, unfold_rows
from .calls import place_of_call, replace
from .operations import Call, OperationRecord, Pairs, TraceMismatch

COUNTED = (
    " (lengths of packed sequences may stay a tensor; where tokens of each expert are counted, let it find its own by a mask, "
    "torch.where(chosen == expert), instead of slices of sorted ones)"
)


IN_NUMPY = {torch.float32, torch.float64, torch.int64}  # and in most models


@dataclass
class Constants:
    """Tensors that an active call takes as constants. ``overwritten``: the model writes to one of them later.

    ``fingerprints`` identify their contents. Weights have none: all weights are compared in every call, see
    ``reference_cache.py``.
    """

    name: str
    tensors: tuple[Tensor, ...]
    fingerprints: tuple[Hashable, ...]
    overwritten: bool = False


@dataclass
class Tape:
    """The record of a run: every active call in order, and the records of the nonlinear ones.

    The example side has a tape too, whose ``reference`` is the tape that it is compared with. ``weights`` are the ids of the
    parameters of the model's modules.
    """

    pairs: Pairs
    reference: Tape | None = None
    composites: list[str] = field(default_factory=list)  # names of the composite operations that are running
    takes_python_values: bool = False  # whether Python code reads numbers that depend on the input
    calls: list[tuple[str, str, str]] = field(default_factory=list)  # name, name in the user's code, place
    records: list[OperationRecord] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    numbers: list[tuple[str, list[Any]]] = field(default_factory=list)
    constants: list[Constants] = field(default_factory=list)
    dtypes: set[torch.dtype] = field(default_factory=set)
    weights: frozenset[int] = frozenset()
    row_orders: RowOrders = field(default_factory=RowOrders)
    nbytes: int = 0
    memory: int = 0
    _constants_at: defaultdict[int, list[Constants]] = field(default_factory=lambda: defaultdict(list))
    _numbers_checked: int = 0  # calls whose numbers have been compared
    _constants_checked: int = 0

    @property
    def names(self) -> list[str]:
        """Return the names of all active calls."""
        return [name for name, _, _ in self.calls]

    def user_name(self, name: str) -> str:
        """Return the name of the operation that the model calls, of which a call may be a part."""
        return self.composites[0] if self.composites else name

    def call(self, name: str) -> str:
        """Record one active call, and check that the reference made the same one; return its place in the user's code."""
        if self.reference is None:
            entry = name, self.user_name(name), place_of_call()
        else:
            position, recorded = len(self.calls), self.reference.calls
            if position >= len(recorded) or recorded[position][0] != name:
                reference_call = (
                    "is finished" if position >= len(recorded) else "calls {1} at {2}".format(*recorded[position])
                )
                raise TraceMismatch(
                    f"the example calls {self.user_name(name)} at {place_of_call()}, where the reference {reference_call}"
                )
            entry = recorded[position]
        self.calls.append(entry)
        return entry[2]

    def finish(self) -> None:
        """Check that the reference made no further calls."""
        if self.reference is not None and len(self.calls) < len(self.reference.calls):
            _, name, place = self.reference.calls[len(self.calls)]
            raise TraceMismatch(f"the reference continues with {name} at {place}, and the example has ended")

    def check_equal(self, name: str, value: Any, what: str) -> None:
        """Record a value that must not differ between the sides, or compare it with the recorded one."""
        self.takes_python_values = True
        place = self.call(name)
        if not self.equals_recorded(name, value):
            several = not isinstance(value, (bool, int, float, complex))
            raise TraceMismatch(f"{what} at {place} differs between example and reference{COUNTED if several else ''}")

    def equals_recorded(self, name: str, value: Any) -> bool:
        """Record a value, or return whether it equals the recorded one."""
        position = len(self.values)
        self.values.append(value if self.reference is None else None)
        if self.reference is None:
            return True
        if position >= len(self.reference.values):
            raise TraceMismatch(f"{self.user_name(name)} at {place_of_call()} has no counterpart on the reference side")
        return _equal(value, self.reference.values[position], self._pairs_at(position, self.row_orders.values))

    def _pairs_at(self, position: int, orders: Sequence[int]) -> Pairs:
        """Return the pairs, with the order of rows at a position."""
        return self.pairs._replace(outer=orders[position]) if position < len(orders) else self.pairs

    # ------------------------------------------------------------------ what calls take: numbers and constants
    def check_numbers(self, name: str, numbers: list[Any]) -> None:
        """Record the numbers that an active call takes, or check that they are the recorded ones, except for numbers of rows."""
        values = ["nan" if v != v else v for v in numbers] if numbers else numbers
        if self.reference is None:
            self.numbers.append((name, values))
            return
        position, self._numbers_checked = self._numbers_checked, self._numbers_checked + 1
        if position >= len(self.reference.numbers):
            return
        recorded_name, recorded = self.reference.numbers[position]
        if recorded_name == name and values != recorded and not self._as_rows(values, recorded):
            raise TraceMismatch(
                f"{self.user_name(name)} at {place_of_call()} takes other numbers ({_join_first(values)}) than for the reference "
                f"({_join_first(recorded)}), which depend on the input, or on state that the model changes when it runs"
            )

    def _as_rows(self, values: list[Any], recorded: list[Any]) -> bool:
        """Return whether numbers differ only as the numbers of rows do."""
        n, b = self.pairs.grid
        if len(values) != len(recorded) or not self.pairs.all_pairs:
            return False
        return all(
            x == r or (type(x) is type(r) is int and x * b == r * n) for x, r in zip(values, recorded, strict=True)
        )

    def with_constants(self, call: Call, passive: list[Tensor]) -> Call:
        """Compare a call's constants with those on the reference side; copy those that the model writes to later."""
        if passive and (written := {id(t) for t in call.written()}):
            passive = [t for t in passive if id(t) not in written]
        if not self.check_constants(call.name, passive):
            return call
        copies = {id(t): t.clone() for t in passive}
        return call.with_arguments(*replace((call.args, call.kwargs), lambda t: copies.get(id(t), t)))

    def check_constants(self, name: str, passive: Sequence[Tensor]) -> bool:
        """Record the constants of an active call, or compare them; return whether the model writes to one of them later.

        Constants must be equal on both sides. If they are not, they depend on the input without autograd's knowledge.
        """
        if self.reference is None:
            constants = Constants(name, tuple(passive), tuple(map(self._fingerprint, passive)))
            for tensor in passive:
                self._constants_at[_address(tensor)].append(constants)
            self.constants.append(constants)
            return False
        position, self._constants_checked = self._constants_checked, self._constants_checked + 1
        if position >= len(self.reference.constants):
            return False  # a different call is reported next
        recorded, pairs = self.reference.constants[position], self._pairs_at(position, self.row_orders.constants)
        if passive and recorded.name == name and len(recorded.tensors) == len(passive):
            for tensor, reference_tensor, recorded_fingerprint in zip(
                passive, recorded.tensors, recorded.fingerprints, strict=True
            ):
                if tensor is not reference_tensor or recorded_fingerprint is not None:
                    self._check_constant(name, tensor, reference_tensor, recorded_fingerprint, pairs)
        return recorded.overwritten

    def _fingerprint(self, tensor: Tensor) -> Hashable:
        return None if is_weight(tensor, self.weights) else fingerprint(tensor)

    def _check_constant(
        self, name: str, tensor: Tensor, recorded: Tensor, recorded_fingerprint: Hashable, pairs: Pairs
    ) -> None:
        if tensor.dim() != recorded.dim() or tensor.layout != torch.strided:
            return  # a different form is reported by the call
        value, reference_value = tensor.detach(), recorded.detach()
        if (
            value.shape == reference_value.shape
            and value.data_ptr() == reference_value.data_ptr()
            and value.stride() == reference_value.stride()
        ):
            same = recorded_fingerprint is None or fingerprint(value) == recorded_fingerprint
        else:
            same = _are_equal(*_unfold(value, reference_value, pairs)) or self._count_rows(value, reference_value)
        if same:
            return
        # it may differ with the number of rows: if the sides ran on different numbers, they run on equal ones next
        kind = TraceMismatch if self.pairs.all_pairs else UnsupportedOperationError
        raise kind(_constant_message(self.user_name(name)))

    def _count_rows(self, value: Tensor, reference_value: Tensor) -> bool:
        """Return whether constants relate as the numbers of rows, as the sizes of packed sequences of equal length do.

        What depends on them depends on the batch, which shows in the outputs of single rows.
        """
        n, b = self.pairs.grid
        return (
            self.pairs.all_pairs
            and value.shape == reference_value.shape
            and torch.equal(value * b, reference_value * n)
        )

    def copy_constants(self, target: Tensor) -> None:
        """Copy constants whose memory the model is about to overwrite."""
        for constants in self._constants_at.pop(_address(target), ()):
            constants.overwritten = True
            address = _address(target)
            constants.tensors = tuple(t.clone() if _address(t) == address else t for t in constants.tensors)


def _join_first(numbers: list[Any]) -> str:
    return ", ".join(map(str, numbers[:8]))


def base_of(tensor: Tensor) -> Tensor:
    """Return what a tensor is a view of, or the tensor."""
    base: Tensor | None = _compat.base_of(tensor)
    return tensor if base is None else base


def is_weight(tensor: Tensor, ids: Container[int]) -> bool:
    """Return whether a tensor is one of the parameters with these ids, or a view of one."""
    base = base_of(tensor)
    return isinstance(base, Parameter) and id(base) in ids


def fingerprint(tensor: Tensor) -> Hashable:
    """Return a checksum of a tensor's contents; None for one that has none."""
    plain = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)
    if not plain or not tensor.numel():
        return None
    if tensor.is_cpu and tensor.dtype in IN_NUMPY and tensor.is_contiguous() and not tensor.is_neg():
        return zlib.crc32(tensor.detach().numpy().data)
    values = tensor.detach().resolve_conj().resolve_neg()
    if values.device.type == "cpu":
        flat = values.contiguous().as_strided((values.numel(),), (1,))  # the stride of a single number is arbitrary
        return zlib.crc32(flat.view(torch.uint8).numpy().data)
    rows = torch.view_as_real(values).flatten(-2) if values.is_complex() else values
    sums = [rows.reshape(len(rows) if rows.dim() else 1, -1).sum(k, dtype=torch.float64) for k in (0, 1)]
    weighted = [s @ torch.arange(1, len(s) + 1, dtype=s.dtype, device=s.device) for s in sums]
    return tuple(torch.stack([sums[0].sum(), *weighted]).tolist())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else id(tensor)


def _unfold(value: Tensor, reference_value: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return constants with their rows on an axis of their own, if they have rows."""
    try:
        return unfold_rows(value, reference_value, pairs) if pairs.all_pairs else (value, reference_value)
    except TraceMismatch:
        return value, reference_value


def _are_equal(value: Tensor, reference_value: Tensor) -> bool:
    """Return whether constants are equal; for different numbers of rows, whether all rows are equal, or they are row numbers."""
    if value.shape == reference_value.shape:
        return equal_or_nan(value, reference_value)
    common = [min(sizes) for sizes in zip(value.shape, reference_value.shape, strict=True)]
    if not value.dtype.is_floating_point and value.dtype != torch.bool:
        return equal_or_nan(_first(value, common), _first(reference_value, common))
    first = _first(
        reference_value, [n if value.shape[k] == reference_value.shape[k] else 1 for k, n in enumerate(common)]
    )
    return all(equal_or_nan(side, first.expand_as(side)) for side in (value, reference_value))


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
        x, r = broadcast_pairs(*unfold_rows(value, recorded, pairs), pairs)
        return bool((x == r).all())
    if isinstance(value, np.ndarray):
        return np.array_equal(value, recorded)
    if isinstance(value, (tuple, list)) and isinstance(recorded, (tuple, list)):
        return len(value) == len(recorded) and all(_equal(*items, pairs) for items in zip(value, recorded, strict=True))
    return bool(value == recorded)

"""The tracer: intercept torch while the model runs, look up the rule of each call, and let autograd run.

The model runs once on the references, where the tracer records what the rules need (the tape), and once on the examples,
where every nonlinear call becomes a node of autograd's graph whose backward pass applies its rule to the two sides.
Linear calls run as they are. A value is *active* if it depends on the explained inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from ...errors import UnsupportedOperationError
from . import calls, names
from ._compat import base_of, interception_off, is_view
from .activity import (
    ActivityTracker,
    StorageRegistry,
    Surrogate,
    as_new_tensor,
    attach,
    have_history,
    index_mismatch,
    is_active,
    is_active_mask,
    lacks_values,
    loses_signal,
    mark_active,
    pass_without_values,
    run_on_surrogates,
    split_active,
    surrogate_of,
    surrogate_values,
    with_surrogate,
)
from .autograd import Node, Selections, UsageCounter, applied, recurrent_record, several_at_once
from .calls import (
    detached,
    in_distributions,
    in_grad_mode,
    is_continuous,
    place_of_call,
    replace,
    split_tensors,
    switched_off,
    tensors,
    unsupported_message,
    without_inplace_flag,
)
from .composites.mask_indices import at_all_positions, presence_of
from .composites.positions import AT_POSITIONS
from .convolutions import by_windows
from .custom_functions import CustomFunctionCall, TracedCallable, run_forward
from .operations import (
    CAST,
    COMPOSITE,
    CONSTANT,
    LINEAR,
    RANDOM,
    TO_PYTHON,
    BackwardOptions,
    Call,
    IndexMismatch,
    Operation,
    OperationRecord,
    Pairs,
    Sums,
)
from .recurrent.context import RecurrentContext
from .table import OPERATIONS, USER_OPERATIONS
from .tape import Tape

KEYWORDS = {"axis": "dim", "keepdims": "keepdim"}  # NumPy's names, which torch accepts
VIEWS = ("split", "split_with_sizes", "unsafe_split", "chunk", "unsafe_chunk", "tensor_split", "unbind")


class Tracer(TorchFunctionMode):
    """Runs on one side of the pairs; with a tape, on the example side."""

    def __init__(
        self,
        pairs: Pairs,
        tape: Tape | None = None,
        operations: dict[Any, Operation] | None = None,
        summing: bool = False,
    ) -> None:
        super().__init__()
        self.summing = summing  # whether the leaves need only contributions summed over references
        self.pairs, self._is_example = pairs, tape is not None
        self.context, self.tape = RecurrentContext(pairs), Tape(pairs, tape)
        self.operations = {**USER_OPERATIONS, **(operations or {})}
        self.unsupported: dict[tuple[str, str], None] = {}
        self.options = BackwardOptions()
        # With an inner layer: leaves of values that depend on the input, but not through the layer.
        self.bypass_leaves: list[Tensor] | None = None
        self._from_input = ActivityTracker()
        self._drawn = ActivityTracker()  # random numbers and values computed from them, with call and place
        self._storages, self._inplace = StorageRegistry(), InplaceWrites(self.tape)
        self._usage, self.selections = UsageCounter(), Selections()
        # outputs of custom functions: without history, and as they were traced
        self._awaiting: list[tuple[Tensor, Tensor]] = []

    # ------------------------------------------------------------------ entering and leaving
    def enter(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value to pass to the model, and the leaf that collects its multipliers."""
        with interception_off():  # an inner layer's input enters while the tracer listens
            leaf = value.detach() if value.is_floating_point() else value.detach().double()
            leaf = leaf if self.bypass_leaves is None else leaf.clone()  # the model still holds an inner value
            inside = leaf.requires_grad_().clone()
            self._mark(inside)
            if self.summing:
                self.context.sums.append((inside, Sums()))
            entered = inside if value.is_floating_point() else with_surrogate(value.clone(), inside)
            return entered, leaf

    def enter_around(self, rows: Iterable[Tensor]) -> list[Tensor]:
        """Return copies of the model's inputs, whose paths around the explained layer are tracked."""
        copies, self.bypass_leaves = [r.clone() for r in rows], []
        self._from_input.note(copies)
        return copies

    def leave(self, output: Tensor) -> Tensor:
        """Check that the model's output came through this tracer; return it, or its surrogate."""
        self._attach_histories()
        if drawn := self._drawn_by([output]):
            self.unsupported[drawn] = None
        output = self._joined(output)
        if not is_active(output):
            self._storages.check("the output", [output])
        values = surrogate_values(output)
        self._usage.count([output], self.options)
        self.tape.nbytes += self._usage.count_whole([output])
        return output if values is None else values

    def finish(self) -> None:
        """Raise an error for unsupported calls, and for calls that the reference made and the example did not."""
        if self.unsupported:
            raise UnsupportedOperationError(unsupported_message(list(self.unsupported)))
        self.tape.finish()
        self.context.finish()

    # ------------------------------------------------------------------ interception
    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._awaiting:
            self._attach_histories()
        spelling = names.resolve(function)
        operation = self._operation(function, spelling)
        if operation is not None and operation.kind == CONSTANT:
            if isinstance(function, CustomFunctionCall):
                function.awaiting = []  # torch would give a constant the history of the function's own backward
            return in_grad_mode(False, operation.function or function, args, kwargs)
        name = spelling.name if spelling else getattr(function, "__name__", str(function))
        operands, words = split_tensors((args, kwargs))
        active, passive, has_surrogates = split_active(operands)
        call = Call(
            function, operation, name, bool(spelling and spelling.inplace), args, kwargs, operands, has_surrogates
        )
        if several_at_once():
            calls.check_no_derivative(call.function, call.name, transformed=True)
        if passive:
            fixed = [t for t in passive if not self._drawn_by([t])] if self._drawn.any_noted else passive
            self._storages.check(self.tape.user_name(name), fixed)
        if not active:
            return self._passive(call)
        return self._trace(call, active, passive, words)

    def _attach_histories(self) -> None:
        """Give the outputs of custom functions the history with which they were traced."""
        awaiting, self._awaiting[:] = self._awaiting[:], []
        for output, traced in awaiting:
            with torch.enable_grad():
                output.copy_(traced)
            self._mark(output)

    def _trace(self, call: Call, active: list[Tensor], passive: list[Tensor], words: list[Any]) -> Any:
        """Run an active call and trace its result."""
        if isinstance(call.function, CustomFunctionCall):
            call.function.awaiting = self._awaiting
        if self._drawn_by(call.operands) or self._draws(call):  # refused only if the explained output depends on it
            return self._passive(call, follow=False)
        self._usage.count(active, self.options)
        if only_passes_on(call, active):
            return pass_without_values(call, active[0])
        if torch.is_inference_mode_enabled():
            return self._refuse(f"{call.name} under torch.inference_mode", call)
        result = in_grad_mode(True, self._run_active, (call, passive, words), {})
        self._mark(result)
        bypassed = self._is_example and self.options.diagnosis is None and self.selections.bypass(result)
        self.tape.nbytes += self._usage.count_whole(active) if self._is_example and not bypassed else 0
        return result

    def _run_active(self, call: Call, passive: list[Tensor], words: list[Any]) -> Any:
        """Return the result of an active call, with its arguments checked against the reference's."""
        entered = self._join(call.with_ordinary_tensors() if passive else call)
        passive = passive if entered is call else split_active(entered.operands)[1]
        self.tape.check_numbers(call.name, words)
        return self._active(self.tape.with_constants(entered, passive))

    def _operation(self, function: Any, spelling: names.Spelling | None) -> Operation | None:
        if spelling is not None and not self.operations:
            return OPERATIONS.get(spelling.name)
        key = (
            spelling.name if spelling else function.key if isinstance(function, TracedCallable) else names.key(function)
        )
        try:
            if key in self.operations:
                return self.operations[key]
        except TypeError:  # unhashable callables have no rule
            return None
        if (operation := getattr(function, "operation", None)) is not None:
            return operation
        return OPERATIONS.get(spelling.name) if spelling else None

    @staticmethod
    def _draws(call: Call) -> bool:
        return call.kind == RANDOM and not switched_off(call.function, call.args, call.kwargs)

    def _drawn_by(self, operands: list[Tensor]) -> Any:
        """Return the random call, and its place, that drew one of some tensors or of their bases; or None."""
        if not self._drawn.any_noted:
            return None
        return self._drawn.of([*operands, *(base for t in operands if (base := base_of(t)) is not None)])

    def _passive(self, call: Call, follow: bool = True) -> Any:
        """Run a call on constants, or a call on active values and random numbers, which is not traced."""
        drawn = self._drawn_by(call.operands)
        if self._draws(call):
            drawn = f"{call.name} (random)", place_of_call()
        if drawn and call.kind == TO_PYTHON and not in_distributions():  # Python may decide by it
            self.unsupported[drawn] = None
        operands, written = call.operands, call.written()
        for target in written:
            self._inplace.before(target)
        plain = follow and True not in [t.requires_grad for t in operands]  # else no view could be written to later
        call = call._replace(function=call.function.forward) if isinstance(call.function, CustomFunctionCall) else call
        result = in_grad_mode(plain, call.run_stably, (), {})
        if drawn:
            self._drawn.note(tensors((result, written)), drawn)
        if self._from_input.of(operands):
            self._from_input.note(tensors((result, written)))
        return result

    def _join(self, call: Call) -> Call:
        """Turn arguments that bypass the explained layer into leaves."""
        if self.bypass_leaves is None:
            return call
        for target in call.written():
            if (entered := self._joined(target)) is not target:
                self._overwrite(target, entered)
        out = {"out": call.kwargs["out"]} if "out" in call.kwargs else {}
        args, kwargs = replace((call.args, call.kwargs), self._joined)
        return call.with_arguments(args, {**kwargs, **out})

    def _joined(self, value: Tensor) -> Tensor:
        if self.bypass_leaves is None or not self._from_input.of([value]) or is_active(value):
            return value
        self.tape.call("a value from around the explained layer")
        inside, leaf = self.enter(value)
        self.bypass_leaves.append(leaf)
        return inside

    def _active(self, call: Call) -> Any:
        if call.kwargs and isinstance(out := call.kwargs.get("out"), Tensor):
            rest = {k: v for k, v in call.kwargs.items() if k != "out"}
            return self._overwrite(out, self._active(call._replace(inplace=False).with_arguments(call.args, rest)))
        args, kwargs, flagged = without_inplace_flag(call.function, call.args, call.kwargs)
        call = call._replace(args=args, kwargs=kwargs) if flagged else call
        if call.operation is None:
            return self._unknown(call)
        if call.inplace and isinstance(args[0], (list, tuple)):  # torch._foreach_mul_ and its like
            results = self._active(call._replace(inplace=False))
            return [self._overwrite(target, result) for target, result in zip(args[0], results, strict=True)]
        kind = (call := at_positions(call)).kind
        if flagged or (call.inplace and not (kind in (LINEAR, CAST) and is_continuous(args[0].dtype))):
            call = call._replace(function=names.functional(call.name) if call.inplace else call.function, inplace=False)
            return self._overwrite(args[0], self._active(call))
        return getattr(self, f"_{kind}")(call)

    # ------------------------------------------------------------------ one method per kind
    def _linear(self, call: Call) -> Any:
        if call.name == "__setitem__" and is_active_mask(call.args[1]):
            return self._set_where(*call.args)
        if call.inplace or call.name == "__setitem__":
            self._inplace.before(call.args[0])
        args, kwargs = equal_indices(call, self.tape)
        if call.name == "__setitem__":
            self.tape.call(call.name)
            self._inplace.set_item(call.implementation, *args)
            self._mark(args[0])
            return None
        result = self._on_floats(call, args, kwargs, linear=True)
        if loses_signal(args, result):
            return self._refuse(f"{call.name} (whose result torch does not follow)", call)
        return result

    def _elementwise(self, call: Call) -> Any:
        return self._on_floats(call, call.args, call.kwargs)

    _quadratic = _smooth = _custom = _elementwise

    def _multilinear(self, call: Call) -> Any:
        """Trace a product; a convolution whose groups may be rows is a product of windows and weights."""
        function = by_windows(call) if call.name.startswith("conv") and call.name != "conv_tbc" else None
        if function is None:
            return self._elementwise(call)
        return self._composite(call._replace(operation=Operation(COMPOSITE, function=function)))

    def _on_floats(self, call: Call, args: Any, kwargs: Any, linear: bool = False) -> Any:
        """Trace a call by its operation for the number of active operands."""
        operation = call.operation
        assert operation is not None
        if operation.recurrent:
            call = call._replace(function=partial(call.implementation, context=self.context), operation=None)

        def run(function: Any, args: Any, kwargs: Any, operands: list[Tensor]) -> Any:
            varying = tuple(have_history(operands))
            rule = None if linear else operation.for_active(args, kwargs, sum(varying))
            return self._by_rule(call.name, function, rule, args, kwargs, operands, varying)

        return run_on_surrogates(call, args, kwargs, run, operation.rounds and not linear)

    def _by_rule(
        self,
        name: str,
        function: Any,
        rule: Operation | None,
        args: Any,
        kwargs: Any,
        operands: list[Tensor],
        varying: Any,
    ) -> Any:
        """Run a linear call as it is, and any other as a record."""
        if rule is not None:
            return self._record(name, function, rule, args, kwargs, operands, varying)
        self.tape.call(name)
        return function(*args, **kwargs)

    def _composite(self, call: Call) -> Any:
        assert call.operation is not None
        function = (
            partial(call.implementation, context=self.context) if call.operation.recurrent else call.implementation
        )
        self.tape.composites.append(call.name)
        with self:
            result = function(*call.args, **{KEYWORDS.get(key, key): value for key, value in call.kwargs.items()})
        self.tape.composites.pop()
        return result if call.name in VIEWS else replace(result, as_new_tensor)

    def _cast(self, call: Call) -> Any:
        with torch.no_grad():
            native = call.implementation(*call.args, **call.kwargs)
        if not isinstance(native, Tensor):  # x.type() names the dtype
            return native
        input = call.args[0]
        values = surrogate_values(input)
        if values is None and is_continuous(native.dtype):
            return self._linear(call)
        if values is not None and is_continuous(native.dtype):
            self.tape.call(call.name)
            return values.to(native.dtype).to(native.device)
        if values is not None and native.dtype != torch.bool:
            return with_surrogate(native if native is not input else native.view_as(native), values)
        return self._elementwise(call)

    def _value(self, call: Call) -> Any:
        list(map(surrogate_values, call.operands))  # raises an error for an index without surrogate values
        with torch.no_grad():
            value = call.function(*detached(call.args), **call.kwargs)
        value = value.copy() if isinstance(value, np.ndarray) else value  # it would share memory with the active tensor
        what = f"the Python value that {self.tape.user_name(call.name)} takes out of torch"
        self.tape.check_equal(call.name, value, what)
        return value

    def _index(self, call: Call) -> Any:
        return find_positions(call, self.tape)

    def _random(self, call: Call) -> Any:
        return self._linear(call)

    # ------------------------------------------------------------------ steps
    def _record(
        self, name: str, function: Any, operation: Operation, args: Any, kwargs: Any, operands: list[Tensor], flags: Any
    ) -> Any:
        place, user_name = self.tape.call(name), self.tape.user_name(name)
        record = OperationRecord(user_name, place, function, tuple(detached(args)), detached(kwargs), flags, self.pairs)
        record.inputs = tuple(compress(tensors((record.arguments, record.keywords)), flags))
        if self.tape.reference is not None:
            record.reference = self.tape.reference.records[len(self.tape.records)]
        self.tape.records.append(record)
        self._usage.has_recurrent |= operation.batched_rule
        outputs = iter(applied(Node, self.options, record, operation, *compress(operands, flags)))
        result = next(outputs) if isinstance(record.form, Tensor) else replace(record.form, lambda _: next(outputs))
        record.form = None
        new_outputs = () if self._is_example else record.outputs  # on the example side all results are counted
        self.tape.nbytes += sum([t.nbytes for t in (*record.inputs, *new_outputs)])
        if record.memory is not None:
            self.tape.memory += record.memory_bytes
        return result

    # ------------------------------------------------------------------ activity
    def _mark(self, result: Any) -> None:
        for tensor in tensors(result):
            self._count(tensor)
            surrogate = surrogate_of(tensor)
            if surrogate is not None or tensor.grad_fn is not None:
                mark_active(tensor)
                self._storages.add(tensor)
            if surrogate is not None and surrogate.values is not None:
                self._count(surrogate.values)

    def _count(self, tensor: Tensor) -> None:
        self.tape.dtypes.add(tensor.dtype)
        if (
            self._is_example
            and base_of(tensor) is None
            and not (self._usage.has_recurrent and recurrent_record(tensor))
        ):
            self.tape.nbytes += tensor.nbytes

    # ------------------------------------------------------------------ selection by index, in-place code
    def _set_where(self, target: Tensor, mask: Tensor, value: Any) -> None:
        with self:
            changed = masked(target, mask, value)
        self._overwrite(target, changed)

    def _overwrite(self, target: Tensor, result: Tensor) -> Tensor:
        self._inplace.overwrite(target, result)
        self._mark(target)
        return target

    # ------------------------------------------------------------------ the unknown
    def _unknown(self, call: Call) -> Any:
        calls.check_no_derivative(call.function, call.name, transformed=False)
        if isinstance(call.function, TracedCallable) and call.function.is_custom:
            with self:
                result = run_forward(call.function.key, call.args, call.kwargs)
            self._attach_histories()  # where it returns what another custom function returned
            if any(is_active(t) for t in tensors(result)) or not any(t.numel() for t in tensors(result)):
                return result
        name = call.name if isinstance(call.function, TracedCallable) else resolve_name(call.function) or call.name
        return self._refuse(name, call)

    def _refuse(self, name: str, call: Call) -> Any:
        """Note the call and continue as torch would, so that one error can list all unsupported calls."""
        self.unsupported[(name, place_of_call())] = None
        try:
            with torch.enable_grad():
                result = call.function(*call.args, **call.kwargs)
        except Exception as error:
            raise UnsupportedOperationError(unsupported_message(list(self.unsupported))) from error
        self._mark(result)
        return result


class InplaceWrites:
    """Tracks which operation records, and which constants on a tape, have values in which storage."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._records_at: defaultdict[int, list[OperationRecord]] = defaultdict(list)
        self._registered = 0  # number of records whose storages are known; most models overwrite nothing

    def _register_records(self) -> None:
        for record in self._tape.records[self._registered :]:
            for tensor in tensors(record.saved()):
                self._records_at[tensor.untyped_storage().data_ptr()].append(record)
        self._registered = len(self._tape.records)

    def before(self, target: Tensor) -> None:
        """Copy what is about to be overwritten, in records and tape."""
        self._tape.copy_constants(target)
        self._register_records()
        storage = target.untyped_storage().data_ptr()
        for record in self._records_at.pop(storage, ()):
            record.save_from_overwriting(storage)

    def overwrite(self, target: Tensor, result: Tensor) -> Tensor:
        """Copy a result into its target, so that autograd follows the copy."""
        self.before(target)
        if target.shape != result.shape and not target.numel():  # out=torch.empty(0)
            with torch.no_grad():
                target.resize_(result.shape)
        surrogate = surrogate_of(result)
        if surrogate is None:
            target.copy_(result)
            return target
        if is_view(target):
            raise UnsupportedOperationError(
                f"an in-place change of a view of an integer or boolean tensor at {place_of_call()}: "
                "write it out of place (for instance with torch.where)."
            )
        with torch.no_grad():
            target.copy_(result)
        return attach(target, surrogate)

    def set_item(self, function: Any, target: Tensor, index: Any, value: Any) -> None:
        """Run ``target[index] = value``."""
        new_values = surrogate_values(value) if isinstance(value, Tensor) else None
        if is_continuous(target.dtype):
            function(target, index, value if new_values is None else new_values.to(target.dtype))
            return
        replaced = target.clone()
        old_values = surrogate_values(target)
        floats = target.double() if old_values is None else old_values.clone()
        with torch.no_grad():
            function(replaced, index, value)
        function(floats, index, value if new_values is None else new_values)
        self.overwrite(target, with_surrogate(replaced, floats))


def masked(target: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Return the target after ``target[mask] = value``, for a mask that depends on the input."""
    if isinstance(value, Tensor) and value.dim():
        raise IndexMismatch(
            f"an assignment of several values through a mask that depends on the input at {place_of_call()}: use torch.where."
        )
    return torch.where(mask.reshape(*mask.shape, *[1] * (target.dim() - mask.dim())), value, target)


# Operations whose further arguments are sizes, which may be counts that depend on the input.
SIZED = {"view", "reshape", "expand", "broadcast_to", "repeat", "tile", "unflatten"}


def at_positions(call: Call) -> Call:
    """Replace the operation of a call that selects by indices which depend on the input."""
    operation = AT_POSITIONS.get(call.name) if call.has_surrogates else None
    if operation is None or call.operation is None or not call.operation.indices:
        return call
    indices = _indices(call)
    if any(i.dtype == torch.bool for i in indices):
        operation = _at_masks(call, indices)
    elif any(presence_of(i) is not None for i in indices):
        operation = Operation(COMPOSITE, function=at_all_positions(call.name, call.function))
    elif not any(map(_has_values, indices)):
        operation = None
    return call if operation is None else call._replace(operation=operation)


def only_passes_on(call: Call, active: list[Tensor]) -> bool:
    """Return whether a call only reshapes or selects indices that differ between the sides."""
    if (
        not call.has_surrogates
        or call.operation is None
        or call.kind not in (LINEAR, CAST)
        or not all(map(lacks_values, active))
    ):
        return False
    return not call.operation.indices or all(presence_of(i) is None for i in _indices(call))


def _at_masks(call: Call, indices: list[Tensor]) -> Operation | None:
    """Return the operation for active masks; None for a mask that selects where a single number is written."""
    assert call.operation is not None
    if call.operation.masks is None or not any(map(is_active_mask, indices)):
        return None
    if call.name == "__setitem__" and is_active_mask(call.args[1]) and not getattr(call.args[2], "shape", ()):
        return None
    return Operation(COMPOSITE, function=call.operation.masks)


def _indices(call: Call) -> list[Tensor]:
    """Return the tensors that a call selects by; none for bounds of slices, which cannot differ."""
    if call.name in ("__getitem__", "__setitem__"):
        entries = call.args[1] if isinstance(call.args[1], (tuple, list)) else (call.args[1],)
        index_tensors = [t for e in entries if isinstance(e, (Tensor, list)) for t in tensors(e)]
        return index_tensors if len(index_tensors) == len(tensors(entries)) else []
    by_name = [call.kwargs[key] for key in ("index", "indices") if key in call.kwargs]
    return tensors((call.args[1:2] if call.name == "index_put" else call.args[1:3], by_name))


def _has_values(index: Tensor) -> bool:
    surrogate = surrogate_of(index)
    return surrogate is not None and surrogate.values is not None


def _repeats_by_counts(call: Call) -> bool:
    """Return whether the call is ``repeat_interleave(counts)``, which has no signal."""
    return call.name == "repeat_interleave" and len(call.args) == 1 and "repeats" not in call.kwargs


def equal_indices(call: Call, tape: Tape) -> Any:
    """Return the arguments with active indices checked to be equal on both sides, and then constant."""
    args, kwargs = call.args, call.kwargs
    sized = call.name in SIZED
    if not call.has_surrogates or call.operation is None or not (sized or call.operation.indices):
        return args, kwargs
    signal = [] if _repeats_by_counts(call) else [0, 2] if call.name in ("__setitem__", "index_put") else [0]

    def check_equal(tensor: Tensor) -> Any:
        if surrogate_values(tensor) is not None:
            tape.call(call.name)
            if not tape.equals_recorded(call.name, tensor.detach()):
                kind = "sizes" if sized else "lengths" if call.name == "_pack_padded_sequence" else "indices"
                raise index_mismatch(f"the {kind} of {tape.user_name(call.name).strip('_')}", kind)
            tensor = tensor.detach()
        return int(tensor) if sized else tensor

    new_args = tuple(a if i in signal else replace(a, check_equal) for i, a in enumerate(args))
    new_kwargs = {
        k: v if k in ("value", "values", "src", "source") else replace(v, check_equal) for k, v in kwargs.items()
    }
    return new_args, new_kwargs


def find_positions(call: Call, tape: Tape) -> Any:
    """Return the result of a call that finds positions, such as ``nonzero``; mark it if it differs from the reference's."""
    with torch.no_grad():
        result = call.function(*detached(call.args), **call.kwargs)
    tape.call(call.name)
    origin = f"{tape.user_name(call.name)} at {place_of_call()}"
    same, as_many = (tape.equals_recorded(call.name, v) for v in (result, [t.shape for t in tensors(result)]))
    if not (same or as_many):  # the model may use their number without a traced call
        raise index_mismatch(f"the numbers of what {origin} finds")
    for tensor in () if same else tensors(result):
        attach(tensor, Surrogate(origin=origin))
    return result

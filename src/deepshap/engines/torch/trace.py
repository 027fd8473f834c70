"""The one file that intercepts torch: run a model, look up each call's rule, let autograd carry multipliers.

The model runs once on the references, where the tracer records what the rules need (the tape), and once on the
examples, where every nonlinear call becomes a node whose backward pass applies its rule to the two sides.
Linear calls run as they are. A value is *active* when it depends on the explained inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakTensorKeyDictionary

from ...errors import ControlFlowError, UnsupportedOperationError
from . import names, rules
from .calls import place_of_call, switched_off, unsupported_message, without_inplace_flag
from .nodes import Diagnosis, ForeignCall, Node, is_continuous, recurrent_step, select_apart, several_at_once
from .operations import CAST, CONSTANT, CUSTOM, LINEAR, RANDOM, VALUE, Misaligned, Operation, Pairs, Step, Sums
from .pairing import beside
from .table import OPERATIONS, USER_OPERATIONS
from .tree import detached, replace, tensors

_MARK = "deepshap"
KEYWORDS = {"axis": "dim", "keepdims": "keepdim"}  # NumPy's names, which torch takes too
VIEWS = ("split", "split_with_sizes", "unsafe_split", "chunk", "unsafe_chunk", "tensor_split", "unbind")
_seen: ContextVar[set[str] | None] = ContextVar("deepshap_seen_operations", default=None)


@contextmanager
def seen_operations() -> Iterator[set[str]]:
    """Collect the canonical names of all operations that models call on active values."""
    seen: set[str] = set()
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


@dataclass
class Tag:
    """What is known of an integer or boolean tensor that depends on the input.

    ``carrier`` is its value as floats, through which multipliers flow. Without one, ``origin`` says where the tensor
    came from, and using it is an error: it differs between example and reference and nothing can be attributed to it.
    """

    carrier: Tensor | None = None
    origin: str = ""


@dataclass
class Tape:
    """What the reference run leaves behind: every active call in order, and the steps of the nonlinear ones."""

    pairs: Pairs
    calls: list[tuple[str, str]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    dtypes: set[torch.dtype] = field(default_factory=set)
    nbytes: int = 0
    memory: int = 0


class Tracer(TorchFunctionMode):
    """Runs on one side of the pairs; with a tape it is the example side."""

    def __init__(
        self,
        pairs: Pairs,
        tape: Tape | None = None,
        operations: dict[Any, Operation] | None = None,
        summing: bool = False,
    ) -> None:
        super().__init__()
        self.summing = (
            summing  # whether all that is wanted of the leaves is their contributions, summed over references
        )
        self.sums: list[tuple[Tensor, Sums]] = []  # for every leaf what the model was handed, and where these go
        self.pairs = pairs
        self.reference = tape
        self.tape = Tape(pairs)
        self.operations = {**USER_OPERATIONS, **(operations or {})}
        self.unsupported: dict[tuple[str, str], None] = {}
        self.diagnosis: Diagnosis | None = None
        # With an inner layer: what depends on the input, but not through the layer, and its leaves where it joins later.
        self.around: list[Tensor] | None = None
        self._from_input = WeakTensorKeyDictionary()
        self._drawn = WeakTensorKeyDictionary()  # random numbers, and what is made of them: their call and its place
        self._steps_of: defaultdict[int, list[Step]] = defaultdict(list)
        self._whole: set[Step] = set()  # recurrent networks of whose output not only single steps are used

    # ------------------------------------------------------------------ entering and leaving
    def enter(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value to hand to the model, and the leaf that collects its multipliers."""
        with torch._C.DisableTorchFunction():  # an inner layer's input enters while the tracer listens
            leaf = value.detach() if value.is_floating_point() else value.detach().double()
            leaf = leaf if self.around is None else leaf.clone()  # the model still holds an inner value
            leaf.requires_grad_()
            inside = leaf.clone()
            self._mark(inside)
            if self.summing:
                self.sums.append((inside, Sums()))
            return (inside if value.is_floating_point() else self._tag(value.clone(), inside)), leaf

    def follow(self, rows: Iterable[Tensor]) -> list[Tensor]:
        """Return copies of the model's inputs, whose ways around the explained layer are followed."""
        copies = [r.clone() for r in rows]
        self.around = []
        self._from_input.update(dict.fromkeys(copies, True))
        return copies

    def leave(self, output: Tensor) -> Tensor:
        """Check that the model's output came through this tracer."""
        self._is_active(output)
        carrier = self._carrier(output)
        self._used_whole([output])
        return output if carrier is None else carrier

    def finish(self) -> None:
        """Raise for unsupported calls, and for calls that the reference made and the example did not."""
        if self.unsupported:
            raise UnsupportedOperationError(unsupported_message(list(self.unsupported)))
        if self.reference and len(self.tape.calls) < len(self.reference.calls):
            name, place = self.reference.calls[len(self.tape.calls)]
            raise Misaligned(f"the reference goes on with {name} at {place}, the example is finished")

    # ------------------------------------------------------------------ interception
    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        spelling = names.resolve(function)
        name = spelling.name if spelling else getattr(function, "__name__", str(function))
        operation = self._operation(function, spelling)
        if operation and operation.kind == CONSTANT:
            with torch.no_grad():
                return (operation.function or function)(*args, **kwargs)
        if several_at_once():
            raise UnsupportedOperationError(
                f"{name} at {place_of_call()} runs inside a torch.func transform (vmap, grad, jvp), which hides from "
                "deepshap what depends on the input. Write it with batched operations."
            )
        active = [t for t in tensors((args, kwargs)) if self._is_active(t)]
        inplace = bool(spelling and spelling.inplace)
        if not active:
            return self._passive(function, operation, name, inplace, args, kwargs)
        if drawn := self._drawn_for(args, kwargs):
            self.unsupported[drawn] = None
        if operation and operation.kind == LINEAR and all(_poisoned(t) for t in active):
            return self._pass_on(function, args, kwargs, active[0])
        if torch.is_inference_mode_enabled():
            return self._refuse(f"{name} under torch.inference_mode", function, args, kwargs)
        if (seen := _seen.get()) is not None:
            seen.add(name)
        with torch.enable_grad():
            if self.around is not None:
                args, kwargs = self._join(name, inplace, args, kwargs)
            result = self._active(function, operation, name, inplace, args, kwargs)
        self._mark(result)
        if self.reference is not None and self.diagnosis is None and not select_apart(result):
            self._used_whole(active)
        return result

    def _used_whole(self, values: Iterable[Tensor]) -> None:
        for step in map(recurrent_step, values):
            if step is not None and step not in self._whole:
                self._whole.add(step)
                self.tape.nbytes += step.outputs[0].nbytes

    def _pass_on(self, function: Any, args: Any, kwargs: Any, poisoned: Tensor) -> Any:
        """Reshape or select indices that differ between the sides: only their use is an error."""
        result = function(*detached(args), **kwargs)
        for tensor in tensors(result):
            tensor._deepshap = poisoned._deepshap  # type: ignore[attr-defined]
        return result

    def _operation(self, function: Any, spelling: names.Spelling | None) -> Operation | None:
        key = function.key if isinstance(function, ForeignCall) else names.key(function)
        try:
            if key in self.operations:
                return self.operations[key]
        except TypeError:  # unhashable callables have no rule
            return None
        if (own := getattr(function, "operation", None)) is not None:
            return own
        return OPERATIONS.get(spelling.name) if spelling else None

    def _passive(
        self, function: Any, operation: Operation | None, name: str, inplace: bool, args: Any, kwargs: Any
    ) -> Any:
        drawn = self._drawn_for(args, kwargs)
        if operation and operation.kind == RANDOM and not switched_off(function, args, kwargs):
            drawn = f"{name} (random)", place_of_call()
        if drawn and operation and operation.kind == VALUE:  # Python may decide by it
            self.unsupported[drawn] = None
        given = list(tensors((args, kwargs)))
        with torch.set_grad_enabled(not any(t.requires_grad for t in given)):  # else no view could be written to later
            result = function(*args, **kwargs)
        if drawn:  # an error only where they meet the signal: layers draw masks that they do not use when evaluated
            self._drawn.update(dict.fromkeys(tensors((result, _written(name, inplace, args))), drawn))
        if self.around is not None and any(t in self._from_input for t in given):
            for tensor in tensors((result, _written(name, inplace, args))):
                self._from_input[tensor] = True
        return result

    def _drawn_for(self, args: Any, kwargs: Any) -> tuple[str, str] | None:
        """The random call that one of the arguments comes from."""
        if not self._drawn:
            return None
        return next((self._drawn[t] for t in tensors((args, kwargs)) if t in self._drawn), None)

    def _join(self, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        """Let values in that depend on the input by another way than through the explained layer."""

        def enter(value: Tensor) -> Tensor:
            if value not in self._from_input or self._is_active(value):
                return value
            assert self.around is not None
            self._call("a value from around the explained layer")
            inside, leaf = self.enter(value)
            self.around.append(leaf)
            return inside

        for target in _written(name, inplace, args):
            if (entered := enter(target)) is not target:
                self._overwrite(target, entered)
        out = {"out": kwargs["out"]} if "out" in kwargs else {}
        return replace(args, enter), {**replace(kwargs, enter), **out}

    def _active(
        self, function: Any, operation: Operation | None, name: str, inplace: bool, args: Any, kwargs: Any
    ) -> Any:
        out = kwargs.pop("out", None) if isinstance(kwargs.get("out"), Tensor) else None
        if out is not None:
            return self._overwrite(out, self._active(function, operation, name, False, args, kwargs))
        args, kwargs, flagged = without_inplace_flag(function, args, kwargs)
        if operation is None:
            return self._unknown(function, name, args, kwargs)
        linear = operation.kind in (LINEAR, CAST)
        if flagged or (inplace and not (linear and is_continuous(args[0].dtype))):
            plain = names.functional(name) if inplace else function
            return self._overwrite(args[0], self._active(plain, operation, name, False, args, kwargs))
        return getattr(self, f"_{operation.kind}")(function, operation, name, inplace, args, kwargs)

    # ------------------------------------------------------------------ one method per kind
    def _linear(self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        if name == "__setitem__" and _is_varying_mask(args[1]):
            return self._set_where(*args)
        self._call(name)
        if inplace or name == "__setitem__":
            self._before_overwriting(args[0])
        args, kwargs = self._settle_indices(operation, name, args, kwargs)
        function = operation.function or function
        if name == "__setitem__":
            return self._set_item(function, *args)
        return self._on_carriers(function, args, kwargs, lambda f, a, k: f(*a, **k))

    def _multilinear(
        self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any
    ) -> Any:
        def run(function: Any, args: Any, kwargs: Any) -> Any:
            varying = [t for t in tensors((args, kwargs)) if _depends(t)]
            if len(varying) == 1:
                self._call(name)
                return function(*args, **kwargs)
            if operation.rule and len(varying) == len(args) == 2 and not kwargs and all(t.dim() > 1 for t in args):
                own = Operation(CUSTOM, operation.rule, broadcasts=True)
            else:
                own = Operation(CUSTOM, rules.along_segment(nodes=(len(varying) + 1) // 2))
            return self._step(name, function, own, args, kwargs)

        return self._on_carriers(operation.function or function, args, kwargs, run)

    def _elementwise(
        self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any
    ) -> Any:
        def run(function: Any, args: Any, kwargs: Any) -> Any:
            varying = [t for t in tensors((args, kwargs)) if _depends(t)]
            secant = operation.secant if len(varying) == 1 else None
            rule = operation.rule or rules.rescale(secant)
            own = Operation(CUSTOM, rule, broadcasts=operation.broadcasts)
            return self._step(name, function, own, args, kwargs)

        return self._on_carriers(operation.function or function, args, kwargs, run, rounds=True)

    def _quadratic(self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        rule = Operation(CUSTOM, rules.along_segment(nodes=1))
        return self._custom(function, rule, name, inplace, args, kwargs)

    def _smooth(self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        rule = Operation(CUSTOM, rules.along_segment(nodes=rules.SMOOTH_NODES))
        return self._custom(function, rule, name, inplace, args, kwargs)

    def _custom(self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        return self._on_carriers(
            operation.function or function, args, kwargs, lambda f, a, k: self._step(name, f, operation, a, k)
        )

    def _composite(self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        assert operation.function is not None
        kwargs = {KEYWORDS.get(key, key): value for key, value in kwargs.items()}
        if operation.recurrent:
            kwargs |= {"repeats": self._repeats, "sums": self._sums_of}
        with self:
            result = operation.function(*args, **kwargs)
        return result if name in VIEWS else replace(result, _own)

    def _repeats(self, *values: tuple[Tensor, int]) -> int:
        """Of how many consecutive rows each is the same example, so that forward values are computed once for all.

        ``values`` are tensors, each with the axis of its rows.
        """
        repeats = self.pairs.references
        crossed, rows = self.pairs.crossed, self.pairs.rows
        if self.reference is None or crossed or repeats == 1 or any(t.shape[axis] != rows for t, axis in values):
            return 1
        with torch._C.DisableTorchFunction():
            # What was handed to the model to be summed over references was made of repeated rows.
            known = [inside for inside, _ in self.sums if not inside._version]
            unsure = [(t, axis) for t, axis in values if not any(t is inside for inside in known)]
            return repeats if all(_rows_repeat(t, axis, repeats) for t, axis in unsure) else 1

    def _sums_of(self, data: Tensor, batch_first: bool, repeats: int) -> Sums | None:
        """Where contributions of an explained input go, if ``data`` is one, as it came or with rows and steps exchanged."""
        if repeats != (1 if self.pairs.crossed else self.pairs.references):
            return None
        with torch._C.DisableTorchFunction():
            return next((sums for inside, sums in self.sums if _is_untouched(inside, data, batch_first)), None)

    def _cast(self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        with torch.no_grad():
            native = function(*args, **kwargs)
        if not isinstance(native, Tensor):  # x.type() names the dtype
            return native
        carrier = self._carrier(args[0])
        if carrier is None and is_continuous(native.dtype):
            return self._linear(function, operation, name, inplace, args, kwargs)
        if carrier is not None and is_continuous(native.dtype):
            self._call(name)
            return carrier.to(native.dtype).to(native.device)
        if carrier is not None and native.dtype != torch.bool:
            return self._tag(native if native is not args[0] else native.view_as(native), carrier)
        return self._elementwise(function, operation, name, inplace, args, kwargs)

    def _value(self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        with torch.no_grad():
            value = function(*detached(args), **kwargs)
        self._same(name, value, f"the Python value that {name} takes out of torch")
        return value

    def _index(self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        with torch.no_grad():
            result = function(*detached(args), **kwargs)
        self._call(name)
        if not self._same_as_recorded(name, result):
            result._deepshap = Tag(origin=f"{name} at {place_of_call()}")
        return result

    def _random(self, function: Any, operation: Operation, name: str, inplace: bool, args: Any, kwargs: Any) -> Any:
        if switched_off(function, args, kwargs):
            return self._linear(function, operation, name, inplace, args, kwargs)
        return self._refuse(f"{name} (random)", function, args, kwargs)

    # ------------------------------------------------------------------ steps and the tape
    def _step(self, name: str, function: Any, operation: Operation, args: Any, kwargs: Any) -> Any:
        place = self._call(name)
        varying = [t for t in tensors((args, kwargs)) if _depends(t)]
        flags = tuple(_depends(t) for t in tensors((args, kwargs)))
        step = Step(name, place, function, tuple(detached(args)), detached(kwargs), flags, self.pairs)
        if self.reference is not None:
            step.reference = self.reference.steps[len(self.tape.steps)]
        self.tape.steps.append(step)
        outputs = iter(Node.apply(self.diagnosis, step, operation, *varying))
        result = replace(step.form, lambda _: next(outputs))
        step.form = None
        for tensor in tensors(step.kept()):
            self._steps_of[tensor.untyped_storage().data_ptr()].append(step)
        made = step.outputs if self.reference is None else ()  # those of the example side are counted with all results
        self.tape.nbytes += sum(t.nbytes for t in (*step.inputs, *made))
        self.tape.memory += getattr(step.memory, "nbytes", 0)
        return result

    def _call(self, name: str) -> str:
        """Note one active call, and check that the reference made the same one."""
        place = place_of_call()
        position = len(self.tape.calls)
        self.tape.calls.append((name, place))
        if self.reference is not None:
            recorded = self.reference.calls
            if position >= len(recorded) or recorded[position][0] != name:
                other = "is finished" if position >= len(recorded) else "calls {} at {}".format(*recorded[position])
                raise Misaligned(f"the example calls {name} at {place}, where the reference {other}")
        return place

    def _same(self, name: str, value: Any, what: str) -> None:
        """Record a value that must not differ between the sides, or compare it with the recorded one."""
        place = self._call(name)
        if not self._same_as_recorded(name, value):
            raise Misaligned(f"{what} at {place} differs between example and reference")

    def _same_as_recorded(self, name: str, value: Any) -> bool:
        position = len(self.tape.values)
        self.tape.values.append(value if self.reference is None else None)
        if self.reference is None:
            return True
        if position >= len(self.reference.values):
            raise Misaligned(f"{name} at {place_of_call()} has no counterpart on the reference side")
        return _equal(value, self.reference.values[position], self.pairs)

    # ------------------------------------------------------------------ activity
    def _is_active(self, tensor: Tensor) -> bool:
        tag = getattr(tensor, "_deepshap", None)
        if tag is not None:
            return True
        if not tensor.requires_grad or tensor.grad_fn is None:
            return False
        if _MARK in _metadata(tensor.grad_fn) or tensor._is_view():
            return True
        if not _reaches_mark(tensor.grad_fn):
            return False
        raise UnsupportedOperationError(
            f"a tensor used at {place_of_call()} depends on the explained input through code that deepshap cannot see "
            f"({tensor.grad_fn.name()}): a TorchScript module, a C++ extension, or a torch.autograd.Function "
            "whose apply was taken out of it beforehand. Use the plain Python module, call Function.apply in the model, or "
            "wrap the code in a torch.autograd.Function and give that a rule with deepshap.register_rule."
        )

    def _mark(self, result: Any) -> None:
        for tensor in tensors(result):
            self.tape.dtypes.add(tensor.dtype)
            for changed in (tensor, tensor._base):  # a base changes with its views
                if changed is not None and changed.grad_fn is not None:
                    _metadata(changed.grad_fn)[_MARK] = True
            if self.reference is not None and not tensor._is_view() and recurrent_step(tensor) is None:
                self.tape.nbytes += tensor.nbytes

    def _tag(self, tensor: Tensor, carrier: Tensor) -> Tensor:
        self._mark(carrier)
        tensor._deepshap = Tag(carrier)  # type: ignore[attr-defined]
        return tensor

    def _carrier(self, tensor: Any) -> Tensor | None:
        tag = getattr(tensor, "_deepshap", None)
        if tag is None:
            return None
        if tag.carrier is None:
            raise ControlFlowError(
                f"the indices from {tag.origin} differ between example and reference and are used at {place_of_call()}. "
                "A selection that depends on the input in this way cannot be attributed: take the values themselves "
                "(max, topk, sort return them), or pass the indices as additional_forward_args."
            )
        return tag.carrier

    def _on_carriers(self, function: Any, args: Any, kwargs: Any, run: Callable[..., Any], rounds: bool = False) -> Any:
        """Run a function with integer and boolean inputs replaced by their carriers, and tag what it returns."""
        if not any(hasattr(t, "_deepshap") for t in tensors((args, kwargs))) and not rounds:
            return run(function, args, kwargs)
        with torch.no_grad():
            native = function(*detached(args), **kwargs)
        if not isinstance(native, Tensor):
            substituted = replace((args, kwargs), self._carried)
            return _retag(self, native, run(function, *substituted))
        dtype = native.dtype
        if rounds and not is_continuous(dtype):
            return self._tag(native, run(_through_integers(function, args, kwargs), *self._as_carriers(args, kwargs)))
        if not is_continuous(dtype):
            return self._tag(native, run(function, *self._as_carriers(args, kwargs)))
        floats = replace((args, kwargs), lambda t: self._carried(t, dtype))
        return run(function, *floats)

    def _as_carriers(self, args: Any, kwargs: Any) -> Any:
        kwargs = {k: v for k, v in kwargs.items() if k != "dtype"}
        return replace((args, kwargs), self._carried)

    def _carried(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        carrier = self._carrier(tensor)
        if carrier is None:
            return tensor
        return carrier if dtype is None else carrier.to(dtype)

    # ------------------------------------------------------------------ selection by index
    def _settle_indices(self, operation: Operation, name: str, args: Any, kwargs: Any) -> Any:
        """Indices that depend on the input must select the same on both sides; then they are constants."""
        if not operation.indices:
            return args, kwargs
        signal = [0, 2] if name in ("__setitem__", "index_put") else [0]

        def settle(tensor: Tensor) -> Tensor:
            if self._carrier(tensor) is None:
                return tensor
            self._same(name, tensor.detach(), f"an index of {name}")
            return tensor.detach()

        settled = tuple(a if i in signal else replace(a, settle) for i, a in enumerate(args))
        kept = {k: v if k in ("value", "values", "src", "source") else replace(v, settle) for k, v in kwargs.items()}
        return settled, kept

    def _set_where(self, target: Tensor, mask: Tensor, value: Any) -> None:
        """``target[mask] = value`` with a mask that depends on the input."""
        if isinstance(value, Tensor) and value.dim():
            raise UnsupportedOperationError(
                f"an assignment of several values through a mask that depends on the input at {place_of_call()}: use torch.where."
            )
        with self:
            wide = mask.reshape(*mask.shape, *[1] * (target.dim() - mask.dim()))
            changed = torch.where(wide, value, target)
        self._overwrite(target, changed)

    def _set_item(self, function: Any, target: Tensor, index: Any, value: Any) -> None:
        carrier = self._carrier(value) if isinstance(value, Tensor) else None
        if is_continuous(target.dtype):
            function(target, index, value if carrier is None else carrier.to(target.dtype))
            self._mark(target)
            return
        replaced = target.clone()
        tagged = self._carrier(target)
        carried = target.double() if tagged is None else tagged.clone()
        with torch.no_grad():
            function(replaced, index, value)
        function(carried, index, value if carrier is None else carrier)
        self._overwrite(target, self._tag(replaced, carried))

    # ------------------------------------------------------------------ in-place code
    def _overwrite(self, target: Tensor, result: Tensor) -> Tensor:
        self._before_overwriting(target)
        if target.shape != result.shape and not target.numel():  # out=torch.empty(0)
            with torch.no_grad():
                target.resize_(result.shape)
        tag = getattr(result, "_deepshap", None)
        if tag is None:
            target.copy_(result)
        else:
            if target._is_view():
                raise UnsupportedOperationError(
                    f"an in-place change of a view of an integer or boolean tensor at {place_of_call()}: "
                    "write it out of place (for instance with torch.where)."
                )
            with torch.no_grad():
                target.copy_(result)
            target._deepshap = tag  # type: ignore[attr-defined]
        self._mark(target)
        return target

    def _before_overwriting(self, target: Tensor) -> None:
        storage = target.untyped_storage().data_ptr()
        for step in self._steps_of.pop(storage, ()):
            step.save_from_overwriting(storage)

    # ------------------------------------------------------------------ the unknown
    def _unknown(self, function: Any, name: str, args: Any, kwargs: Any) -> Any:
        if not isinstance(function, ForeignCall):
            name = resolve_name(function) or name
        return self._refuse(name, function, args, kwargs)

    def _refuse(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """Note the call and go on as torch would, so that one error can list all of them."""
        self.unsupported[(name, place_of_call())] = None
        try:
            with torch.enable_grad():
                result = function(*args, **kwargs)
        except Exception as error:
            raise UnsupportedOperationError(unsupported_message(list(self.unsupported))) from error
        self._mark(result)
        return result


# ---------------------------------------------------------------------- walking through arguments
def _depends(tensor: Tensor) -> bool:
    return tensor.requires_grad and tensor.grad_fn is not None


def _written(name: str, inplace: bool, args: Any) -> list[Tensor]:
    """What a call writes to: its first argument, and first of all the tensor of which that is a view."""
    if not (inplace or name == "__setitem__"):
        return []
    return [t for t in (args[0]._base, args[0]) if t is not None]


def _is_varying_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool and hasattr(index, "_deepshap")


def _poisoned(tensor: Tensor) -> bool:
    tag = getattr(tensor, "_deepshap", None)
    return tag is not None and tag.carrier is None


def _through_integers(function: Any, args: Any, kwargs: Any) -> Callable[..., Any]:
    """Evaluate on carriers as the model does on integers and booleans, and return floats."""
    dtypes = [t.dtype for t in tensors((args, kwargs))]

    def evaluate(*positional: Any, **keywords: Any) -> Tensor:
        original = iter(dtypes)
        back = replace((positional, keywords), lambda t: t.to(next(original)))
        return function(*back[0], **{**kwargs, **back[1]}).double()

    return evaluate


def _retag(tracer: Tracer, native: Any, result: Any) -> Any:
    """Give each tensor of a multi-output result its native dtype back, with carriers where it is no float."""

    def join(n: Any, r: Any) -> Any:
        if isinstance(n, Tensor):
            if is_continuous(n.dtype):
                return r.to(n.dtype)
            return tracer._tag(n, r) if _depends(r) else n
        if isinstance(n, (tuple, list)):
            joined = [join(a, b) for a, b in zip(n, r, strict=True)]
            return type(n)(joined) if type(n) in (tuple, list) else tuple(joined)
        return r

    return join(native, result)


def _equal(value: Any, recorded: Any, pairs: Pairs) -> bool:
    if isinstance(value, Tensor):
        if not isinstance(recorded, Tensor):
            return False
        if value.shape == recorded.shape:
            return torch.equal(value, recorded)
        x, r = beside(value, recorded, pairs)
        return bool((x == r).all())
    if isinstance(value, np.ndarray):
        return np.array_equal(value, recorded)
    return bool(value == recorded)


def _metadata(node: Any) -> dict[Any, Any]:
    return node.metadata


def _own(tensor: Tensor) -> Tensor:
    """Torch's own function would return new memory in order, on which views and in-place code work."""
    return tensor if tensor.is_contiguous() and not tensor._is_view() else _copied(tensor)


def _copied(tensor: Tensor) -> Tensor:
    copy = tensor.clone(memory_format=torch.contiguous_format)
    if hasattr(tensor, "_deepshap"):
        copy._deepshap = tensor._deepshap  # type: ignore[attr-defined]
    return copy


def _rows_repeat(tensor: Tensor, axis: int, repeats: int) -> bool:
    grouped = tensor.detach().unflatten(axis, (-1, repeats))
    return torch.equal(grouped, grouped.narrow(axis + 1, 0, 1).expand_as(grouped))


def _is_untouched(inside: Tensor, data: Tensor, batch_first: bool) -> bool:
    if inside._version or inside.dim() != 3:
        return False
    if batch_first:
        return data is inside
    turned = inside.transpose(0, 1)
    same = data.shape == turned.shape and data.stride() == turned.stride()
    return same and data._base is inside and data.storage_offset() == 0


def _reaches_mark(node: Any) -> bool:
    stack, visited = [node], set()
    while stack:
        node = stack.pop()
        if node in visited:
            continue
        visited.add(node)
        if _MARK in _metadata(node):
            return True
        stack.extend(parent for parent, _ in node.next_functions if parent is not None)
    return False


__all__ = ["Tape", "Tracer", "seen_operations"]

"""What the engines of all frameworks do alike: read points, run the model by itself, find its rows, describe it."""

from __future__ import annotations

import re
import threading
import traceback
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np

from ..errors import BatchMixingError, DeepShapError, InputError, NonFiniteError
from ..formulas.additivity import EPS, TOLERANCE
from .inputs import InputForm
from .interface import Footprint, ModelProfile, Points
from .snapshot import drawing_kept, other_draws

if TYPE_CHECKING:
    from typing_extensions import Self

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of terminals

T = TypeVar("T")
MOST_TOLD = 600  # letters of a model's error
MOST_OTHERS = 4  # engines of other outputs that are kept, each with the references' activations


class BaseEngine(ABC):
    """An engine but for what is particular to a framework."""

    framework: ClassVar[str]
    packages: ClassVar[tuple[str, str]]
    in_float64: ClassVar[str]
    exhausted: ClassVar[tuple[type[Exception], ...]]  # raised where a device has no memory left
    failures: ClassVar[type[Exception]]  # of models

    def __init__(self, model: Callable[..., Any], layer: Any, output: Any, batch_axis: int | Sequence[int]) -> None:
        self.model, self.layer, self.output, self.batch_axis = model, layer, output, batch_axis
        self.operations: dict[Any, Any] = {}  # rules for single layers, beside those registered for all
        self.output_axis: int | None = None
        self.output_shape: tuple[int, ...] = ()
        self.layer_axes: list[int] = []
        self.dtype = "float32"  # of the output, by name
        self._dtypes: set[str] = set()  # that the signal passes through
        self._recurrent = False  # whether recurrent layers do most of the work
        self.takes_python_values = False  # whether Python, a branch or a loop of the model decides by what it computes
        self._sizes: set[int] = set()  # numbers of rows that were found to make no difference
        self._frozen: list[int] = []  # threads that have promised that the model does not change, for each promise
        self._lock = threading.RLock()
        self._others: OrderedDict[Hashable, Self] = OrderedDict()  # engines of other outputs of the model
        self._cached_values: dict[Hashable, Any] = {}  # once, while the model does not change

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_frozen", "_others", "_cached_values")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock(), _frozen=[], _others=OrderedDict(), _cached_values={})

    # ------------------------------------------------------------------ one at a time, and frozen
    @contextmanager
    def session(self) -> Iterator[None]:
        """Run alone and in a clean state of the framework: one thread at a time uses what an engine keeps."""
        with (
            self.alone(),
            self._lock,
            drawing_kept(),
            ExitStack() as stack,
        ):  # in this order, or two wait for each other
            self._enter(stack)
            yield

    @staticmethod
    @abstractmethod
    def alone() -> AbstractContextManager[Any]:
        """Keep other sessions of the process out: they would prepare the same framework, or another engine of the model."""

    @abstractmethod
    def _enter(self, stack: ExitStack) -> None:
        """Enter the modes in which the framework is used."""

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Promise for the calling thread that the model does not change within the block."""
        thread = threading.get_ident()
        with self._lock:
            self.forget()
            self._frozen.append(thread)
        try:
            yield
        finally:
            with self._lock:
                self._frozen.remove(thread)

    @property
    def is_frozen(self) -> bool:
        """Whether the calling thread has promised that the model does not change."""
        return threading.get_ident() in self._frozen

    def forget(self) -> bool:
        """Forget everything kept of the model; return whether any of it was used, or relied on, in this call."""
        self._sizes, self._others, self._cached_values = set(), OrderedDict(), {}
        return False

    @property
    def is_cached(self) -> bool:
        """Whether what was found of the model holds from call to call."""
        return self.is_frozen

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return ``compute()``, computed in every call, or only once while the model does not change."""
        if not self.is_cached or key is None:
            return compute()
        if key not in self._cached_values:
            self._cached_values[key] = compute()
        return cast("T", self._cached_values[key])

    # ------------------------------------------------------------------ other outputs
    def with_output(self, key: Hashable, model: Callable[..., Any], output: Any) -> Self:
        """Return an engine of another output of the model, with the same handlers, lock and promises; the last few are kept."""
        engine = self._others.pop(key, None) or self._twin()
        engine.model, engine.output, engine._frozen = model, output, self._frozen
        self._others[key] = engine
        if len(self._others) > MOST_OTHERS:
            self._others.popitem(last=False)
        return engine

    def _twin(self) -> Self:
        engine = object.__new__(type(self))
        engine.__dict__.update(self.__dict__, _dtypes=set())
        engine._reset()
        engine.forget()
        return engine

    def _reset(self) -> None:  # noqa: B027
        """Create what no other engine of the model may share."""

    # ------------------------------------------------------------------ reading
    @abstractmethod
    def _form(self, values: Any, what: str) -> InputForm:
        """Return the form of some values."""

    def read_background(self, values: Any, what: str = "background", form: InputForm | None = None) -> Points:
        """Return the references; everything that is compared with them must have their form."""
        form = form or self._form(values, what)
        rows = tuple(form.arrays(values, what))
        form.check_rows(rows, f"the {what}")
        return Points(form, tuple(_copied(r) for r in rows), form.implied(values), (object(),))

    def read(
        self, X: Any, additional_forward_args: Any, background: Points | None = None
    ) -> tuple[Points, Points | None]:
        """Return rows in the form of the background, if there is one, and the background aligned with them."""
        form = background.form if background else self._form(X, "X")
        rows: Sequence[Any] = form.arrays(X, "X")
        if background is not None:
            rows, references = form.aligned(rows, background.inputs)
            rows = form.matched(rows, references)
            if references is not background.inputs:
                background = replace(background, inputs=tuple(references), key=None)
        form.check_rows(rows, "X")
        extra = (*form.implied(X), *form.read_extra(additional_forward_args, len(rows[0])))
        return Points(form, tuple(rows), extra), background

    # ------------------------------------------------------------------ the model by itself
    @abstractmethod
    def _evaluate(self, points: Points) -> np.ndarray:
        """Return outputs of the model as its user calls it, (rows, outputs)."""

    def outputs(self, points: Points, at_once: int, what: str = "X") -> np.ndarray:
        """Return outputs of the model as its user calls it, (rows, outputs), at most ``at_once`` rows at a time."""
        calls = -(-len(points) // at_once)
        at_once = -(-len(points) // calls)  # as many in each call: a few rows take as long as many
        with self.running(points):
            parts = [self._evaluate(points[i : i + at_once]) for i in range(0, len(points), at_once)]
            outputs = np.concatenate(parts).astype(np.float64)
            if self.takes_python_values and at_once > 1:
                self._check_rows_alone(points, outputs)
            else:
                self._check_size(points[:at_once], outputs[:at_once])
        finite = np.isfinite(outputs).all(1)
        if not finite.all():
            row = int(np.argmin(finite))
            masked = (
                " Where -inf masks an output, such as an action that is not allowed, explain the others with "
                "output=lambda y: y[:, allowed], or mask with a large finite number."
            )
            advice = masked if np.isneginf(outputs[row]).any() else ""
            raise NonFiniteError(f"the model returns NaN or infinity for row {row} of {what}.{advice}")
        return outputs

    def _check_size(self, points: Points, outputs: np.ndarray) -> None:
        """Raise unless this number of rows together gives the outputs that some of them give without the others."""
        count = len(points)
        if count > 2 and count not in self._sizes:
            # Another row comes first, by which Python may decide; packed sequences may rely on the order.
            sample = [0, -1] if points.extra else [-1, 0]
            self._check_independence([outputs[sample], self._evaluate(points[sample])])
            self._sizes.add(count)

    @contextmanager
    def running(self, points: Points) -> Iterator[None]:
        """Raise InputError, with the shapes of the rows and a hint, if the user's model fails within the block."""
        try:
            yield
        except Exception as error:
            if isinstance(error, (DeepShapError, MemoryError, *self.exhausted)):
                raise
            rows = ", ".join(f"{tuple(x.shape[1:])} of {str(x.dtype).removeprefix('torch.')}" for x in points.inputs)
            message = " ".join(COLOURS.sub("", self._message(error)).split())
            message = message if len(message) <= MOST_TOLD else f"{message[:MOST_TOLD]}..."
            hint = _hint(error, points)
            raise InputError(
                f"the model fails on rows of shape {rows}: {type(error).__name__}: {message.removesuffix('.')}.{hint}"
            ) from error

    @staticmethod
    def _message(error: Exception) -> str:
        """Return what an error of the framework says."""
        return str(error)

    @abstractmethod
    def _with_layer_values(self, points: Points) -> tuple[Any, Sequence[Any]]:
        """Run the model; return its output and what is explained of the inner layer, if there is one."""

    def _find_axes(self, two: Points) -> list[Any]:
        """Find the axis of the rows in the output; return the output of the first of two rows, alone and among both."""
        with self.running(two):
            together, layers = self._with_layer_values(two)
        try:
            alone, layers_alone = self._with_layer_values(two[:1])
        except self.failures as error:
            raise _fails_on_one(error) from error
        self.output_axis = _row_axis(alone.shape, together.shape, "output")
        shapes = zip(layers_alone, layers, strict=True)
        self.layer_axes = [_row_axis(a.shape, b.shape, "layer's value") for a, b in shapes]
        self._flat(alone, 1)
        return [self._rows_first(o, self.output_axis)[0] for o in (alone, together)]

    def _check_rows_alone(self, points: Points, outputs: np.ndarray) -> None:
        """Compare each row's output with that of the row by itself, since Python may have decided by the whole batch."""
        alone = np.concatenate([self._evaluate(points[i : i + 1]) for i in range(len(points))])
        self._check_independence([outputs, alone])

    def _check_among_others(self, both: Points, runs: Sequence[np.ndarray]) -> tuple[Points, np.ndarray]:
        """Raise unless the first of two rows has the same output behind the other and among several; return the last run.

        Random numbers of NumPy and Python, which all other runs draw alike, are others in these.
        """
        many = both[[1, 0, 1, 1, 1]]
        with other_draws(1):
            behind = self._evaluate(both[[1, 0]])
        with other_draws(2):
            among = self._evaluate(many)
        self._check_independence([*runs, behind[1], among[1]])
        return many, among

    def _check_independence(self, runs: Sequence[np.ndarray]) -> None:
        """Raise if a row's output depends on its batch mates or on the call: ``runs`` hold the output repeatedly."""
        gap, scale = spread(runs)
        if gap > self.eps**0.5 * scale:
            raise BatchMixingError(
                f"the output for a row changes by {gap:.3g} (of {scale:.3g}) with the other rows of its batch, or from call to "
                "call: statistics over the batch, random numbers, state kept between calls, or a Python branch on values of the "
                "whole batch. Such a model has no attribution per row; make its output for a row depend on that row alone."
            )

    def native_outputs(self, points: Points, at_once: int, what: str = "X") -> np.ndarray:
        """Return ``outputs`` of a model that was not probed on such points."""
        self._find_axes(points[[0, -1]])
        return self.outputs(points, at_once, what)

    def as_output(self, values: np.ndarray) -> np.ndarray:
        """Return values (outputs,) in the form and precision of the model's output for a row."""
        return values.reshape(self.output_shape).astype("float64" if self.dtype == "float64" else "float32")

    def _flat(self, output: Any, rows: int) -> Any:
        """Return the output with the rows first, (rows, outputs), and record its shape and dtype."""
        if self.output_axis is not None:
            output = self._rows_first(output, self.output_axis)
        if len(output.shape) == 0 or len(output) != rows:
            raise BatchMixingError(
                f"the model returned an output of shape {tuple(output.shape)} for {rows} rows: it must have one entry per "
                "row. A model that aggregates over the batch cannot be explained row by row; if rows lie along another "
                "axis of the input, say so with batch_axis."
            )
        if not all(output.shape):
            raise InputError(f"the model's output has shape {tuple(output.shape)}: there is nothing in it to explain.")
        dtype = str(output.dtype).removeprefix("torch.")
        if dtype not in TOLERANCE:
            instead = (
                "its absolute value, real or imaginary part, output=lambda y: abs(y) for instance"
                if "complex" in dtype
                else "its logits or probabilities"
            )
            raise InputError(f"the model's output has dtype {output.dtype}; explain {instead}.")
        self.output_shape, self.dtype = tuple(output.shape[1:]), dtype
        return output.reshape(rows, -1)

    @staticmethod
    @abstractmethod
    def _rows_first(output: Any, axis: int) -> Any:
        """Return an output with an axis moved to the front."""

    # ------------------------------------------------------------------ in float64
    @abstractmethod
    def _wide(self) -> Self:
        """Return an engine of the same model that computes in float64."""

    def in_double(self) -> Self | None:
        """Return an engine of the same model that computes in float64; None if this one does."""
        return None if self.tolerance == TOLERANCE["float64"] else self._wide()

    # ------------------------------------------------------------------ what was found out
    @property
    def tolerance(self) -> float:
        """How far sums may be off, relative to the scale of the outputs, by the least precise dtype in the model."""
        return TOLERANCE[self.lowest]

    @property
    def eps(self) -> float:
        """Rounding unit of the least precise dtype in the model."""
        return EPS[self.lowest]

    @property
    def lowest(self) -> str:
        """The least precise dtype in the model, by name."""
        return max((d for d in (self.dtype, *self._dtypes) if d in EPS), key=EPS.__getitem__)

    @property
    def declared_shape(self) -> tuple[int, ...] | None:
        """Shape of the output for a row, where a model says it without a run."""
        return None

    def _profile(self, footprint: Footprint, form: InputForm, compiler: int = 0) -> ModelProfile:
        axes = tuple(form.axes if self.layer is None else self.layer_axes)
        dtype = np.dtype("float64" if self.dtype == "float64" else "float32")
        return ModelProfile(
            self.output_shape, axes, dtype, self.tolerance, self.eps, footprint, self._recurrent, compiler
        )


def _copied(array: Any) -> Any:
    return array.clone() if hasattr(array, "clone") else array.copy()


def _row_axis(alone: Sequence[int], together: Sequence[int], what: str) -> int:
    """Return the axis that grows with the number of rows, from the shapes for one row and for two rows."""
    axes = [axis for axis, sizes in enumerate(zip(alone, together, strict=False)) if sizes == (1, 2)]
    if len(alone) != len(together) or len(axes) != 1:
        raise BatchMixingError(
            f"the {what} has shape {tuple(alone)} for one row and {tuple(together)} for two: no axis holds the rows. A model "
            "that aggregates over the batch cannot be explained row by row; if rows lie along another axis of the input, say "
            "so with batch_axis."
        )
    return axes[0]


def spread(runs: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the largest difference between several runs, and their size."""
    outputs = np.stack(runs).astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite outputs are refused where they are explained
        return float(np.abs(outputs - outputs[0]).max()), float(np.abs(outputs).max())


def _fails_on_one(error: Exception) -> BatchMixingError:
    """Return the error of a model that runs on two rows and fails on one."""
    text = getattr(error, "message", error)  # of TensorFlow's errors, without where they come from
    return BatchMixingError(
        f"the model runs on two rows and fails on one ({type(error).__name__}: {text}): it needs the other rows of its batch, "
        "so that a row has no output, and no attribution, of its own."
    )


def called_twice(layer: str) -> InputError:
    """Return the error of an inner layer that has several inputs."""
    return InputError(
        f"the layer {layer} is called more than once by the model: it has several inputs and outputs, one for each call. "
        "Explain the model's input, or give each call a layer of its own."
    )


def control_flow_message(text: str, where: str) -> str:
    """Return the message for an example and a reference that run differently."""
    return (
        f"the model does not run the same way on the example and on the reference: {text}. Deep SHAP compares the two "
        f"operation by operation. Write input-dependent branches as {where}, or pass what decides them (lengths, masks, flags) "
        "as additional_forward_args, which example and reference share."
    )


# Of layers, by their attributes.
SIZES = {"in_features": "features", "input_size": "features", "in_channels": "channels"}


def _hint(error: BaseException, points: Points) -> str:
    """Return a likely reason why a model fails on rows: a missing argument, another dtype, or other features."""
    if isinstance(error, TypeError):
        return " What it takes beside its inputs goes into additional_forward_args."
    kinds = {str(x.dtype).removeprefix("torch.") for x in points.inputs}
    if "dtype" in str(error) and any("int" in kind for kind in kinds):
        return " The rows are whole numbers: if they are no ids, give them as floating-point numbers."
    if "dtype" in str(error) and kinds != {"float32"}:
        return f" The rows are {', '.join(sorted(kinds))}: give them as the model's own type of numbers, most often float32."
    if any("int" in kind for kind in kinds) and (isinstance(error, IndexError) or "is not in [0, " in str(error)):
        ids = [np.asarray(x) for x in points.inputs if "int" in str(x.dtype)]
        least, largest = min(int(x.min()) for x in ids), max(int(x.max()) for x in ids)
        if least < 0:
            return (
                f" If the rows are ids, none may be negative; the smallest is {least}. Give padding an id of its own."
            )
        return f" If the rows are ids, all ids must be below the vocabulary's size; the largest is {largest}."
    if re.match(r"Expected hidden\[\d\] size", str(error)):
        return (
            " The model holds an initial state for a fixed number of rows: leave the state out, or make it in the forward pass, "
            "x.new_zeros(layers, len(x), hidden)."
        )
    layers = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    layers_with_sizes = [
        (layer, name) for layer in layers for name in SIZES if isinstance(getattr(layer, name, None), int)
    ]
    if not layers_with_sizes:
        return ""
    layer, name = layers_with_sizes[-1]
    return f" It fails in {type(layer).__name__}, which takes {getattr(layer, name)} {SIZES[name]}."

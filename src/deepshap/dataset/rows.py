"""Rows in, their lines out: what every worker does, in this process, in another one or in an actor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np

from ..engines.kernels.worth import take_all
from ..errors import DeepShapError, InputError
from ..found import unscaled
from ..optional import import_pyarrow
from ..options import check_choice
from ..results import Explanation
from ..tables import Sequences, Wide, columns_of, plain
from . import columns, lines
from .batches import Batch
from .columns import Form, Layout

CLOSE = 1.25  # lengths up to this factor apart are padded to the same
NOT_OF_A_ROW = (MemoryError, NotImplementedError)  # errors of the whole run, which no row is to blame for


@dataclass(frozen=True)
class Done:
    """A part's lines, what all rows have in common, how many rows failed, by cause, and the largest gap."""

    table: Any
    layout: Layout | None
    rows: int
    errors: dict[str, int]
    gap: float


class RowExplainer:
    """Explains batches of rows.

    Within ``with row_explainer:`` the model must not change, and what is known of it is kept from batch to batch.

    Parameters
    ----------
    explainer : DeepExplainer
        The explainer.
    form : Form
        How results are written.
    on_error : "raise" or "keep"
        What is done about a row that cannot be explained.
    options : dict
        Of ``explainer(X, ...)``.
    """

    def __init__(self, explainer: Any, form: Form, on_error: str, options: dict[str, Any]) -> None:
        check_choice("on_error", on_error, ("raise", "keep"))
        if options.get("additional_forward_args") is not None:
            raise InputError(
                "additional_forward_args cannot be cut into parts: only lengths can be given, lengths=True."
            )
        self.form, self.on_error, self.options = form, on_error, options
        self._module = columns if form.kind == "values" else lines
        known = signature(type(explainer).__call__).parameters
        for name in options:
            if name not in known:
                raise InputError(f"there is no option {name}=: the explainer takes {', '.join(list(known)[2:])}.")
        self._explainers = {0: explainer}  # by the steps that their backgrounds are cut to, 0 for all of them
        self._axes = explainer.depends_on["batch_axis"]
        players = options.get("players", "cells")
        self.of_cells = isinstance(players, str) and players == "cells"  # else values do not belong to steps
        self._raws = _raws_of(explainer)
        background = explainer.depends_on["background"]
        self._of_fractions = isinstance(background, list) and columns.dtypes_of(background[0])[""].kind == "f"
        self._frozen: ExitStack | None = None
        self._options_checked = False

    def __enter__(self) -> RowExplainer:
        """Take the model as it is now until the end: what is known of it and of the background is kept.

        Kernels are taken from the first part on: a part's values must not show what else its worker has explained.
        """
        take_all()
        self._frozen = ExitStack()
        for explainer in self._explainers.values():
            self._frozen.enter_context(explainer.frozen())
        return self

    def __exit__(self, *_: object) -> None:
        if self._frozen is not None:
            self._frozen.close()
        self._frozen = None

    def share_memory_among(self, count: int) -> None:
        """Leave memory to others that explain on the same machine."""
        self._explainers[0].max_memory = max(1, self._explainers[0].max_memory // count)

    @property
    def on_gpu(self) -> bool:
        """Whether the model computes on a GPU."""
        background = self._explainers[0].depends_on["background"]
        return isinstance(background, list) and "cuda" in str(getattr(background[0], "device", ""))

    def __call__(self, batch: Batch) -> Done:
        """Explain some rows.

        Raises
        ------
        DeepShapError
            If a row cannot be explained and errors are not kept; the message says which.
        InputError
            If the options fit no row, whether errors are kept or not.
        """
        batch = replace(batch, X=_with_fractions(batch.X)) if self._of_fractions else batch
        if self.form.kind == "long" and len(np.unique(batch.ids)) < len(batch):
            ids, counts = np.unique(batch.ids, return_counts=True)
            raise InputError(
                f"the id {str(ids[counts.argmax()])!r} stands for two rows, which form='long' could not tell apart: give each "
                "row an id of its own, or take form='values'."
            )
        pieces = self._by_length(batch) if len(batch) else []
        found = [piece for rows in pieces for piece in self._pieces(batch, rows)]
        written = batch if self.of_cells else replace(batch, lengths=None)
        good = [(rows, one) for rows, one in found if isinstance(one, Explanation)]
        failed = [(rows, one) for rows, one in found if isinstance(one, Exception)]
        made = [(rows, *self._module.table_of(one, written[rows], self.form)) for rows, one in good]
        raws = self._raws if batch.raw is None else columns.dtypes_of(batch.raw)
        known = made[0][1].schema if made else self._module.schema_of(self.form, batch, raws)
        for rows, error in failed:
            made.append((rows, columns.failed_table(batch[rows], said(error), known), np.arange(len(rows))))
        errors: dict[str, int] = {}
        for rows, error in failed:
            errors[type(error).__name__] = errors.get(type(error).__name__, 0) + len(rows)
        layout = columns.layout_of(good[0][1], written.lengths is not None) if good else None
        gap = max((float(np.max(next(iter(columns.parts_of(one).values())).gap)) for _, one in good), default=0.0)
        return Done(_in_order(made) if made else known.empty_table(), layout, len(batch), errors, gap)

    # ------------------------------------------------------------------ rows that fail
    def _pieces(self, batch: Batch, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Explanation | Exception]]:
        """The explanations of some rows, in halves where one of them fails, down to the row that does."""
        try:
            yield rows, self._explain(batch[rows])
            return
        except NOT_OF_A_ROW:
            raise
        except Exception as error:
            if isinstance(error, InputError) and not self._options_checked:
                self._check_options(batch)
            own = error.__cause__ if isinstance(error, InputError) else None  # of the model, which says more
            failure = own if isinstance(own, Exception) else error
        if len(rows) > 1:
            half = len(rows) // 2
            yield from self._pieces(batch, rows[:half])
            yield from self._pieces(batch, rows[half:])
        elif self.on_error == "keep":
            yield rows, failure
        else:
            kind = type(failure) if isinstance(failure, DeepShapError) else DeepShapError
            what = f"row {batch.ids[rows[0]]} (part {batch.number}) cannot be explained: {said(failure)}"
            raise kind(what) from failure

    def _check_options(self, batch: Batch) -> None:
        """Raise what is wrong with the options if not even a row of the background can be explained with them."""
        explainer, options = self._explainers[0], dict(self.options)
        background = explainer._background
        if background is None or background.form.packed:
            return
        inputs, form = background[:1].inputs, background.form
        X = dict(zip(form.names, inputs, strict=True)) if form.names else list(inputs) if form.several else inputs[0]
        if batch.targets is not None:
            options["targets"] = np.zeros_like(batch.targets[:1], int)  # the first output, which every model has
        if batch.lengths is not None:
            options["additional_forward_args"] = (np.array([inputs[0].shape[1]]),)
        try:
            explainer(_placed(X, self._axes), **options)
        except InputError:
            raise
        except DeepShapError:  # of the values, which are those of this row
            pass
        self._options_checked = True

    # ------------------------------------------------------------------ rows that do not
    def _explain(self, batch: Batch) -> Explanation:
        options = dict(self.options) if batch.targets is None else {**self.options, "targets": batch.targets}
        X, raw, explainer = batch.X, batch.raw, self._explainers[0]
        if batch.lengths is not None:
            most = _steps(X)
            if batch.lengths.max() > most:
                raise InputError(f"a row of {most} steps cannot have {batch.lengths.max()} valid ones.")
            steps = padded_to(int(batch.lengths.max()), most) if self.of_cells else most
            X, raw, explainer = shortened(X, steps), shortened(raw, steps), self._explainer(steps % most)
            options["additional_forward_args"] = (batch.lengths.astype(np.int64),)
        elif isinstance(X, Sequences):  # the model reads the padding, which is none then
            X = replace(X, lengths=np.full(len(X), X.values.shape[1]))
        explanation = explainer(_placed(X, self._axes), **options)
        if batch.lengths is not None and self.of_cells:
            explanation.lengths = batch.lengths  # an error if the model reads what stands behind
        if raw is not None:
            features = explainer.model_features or columns_of(plain(X, "the data")[1])
            shown, _ = plain(raw, "raw=", names=features)
            for part, one in zip(columns.parts_of(explanation).values(), _each(shown), strict=True):
                part.display_data = one
        return explanation

    def _by_length(self, batch: Batch) -> list[np.ndarray]:
        """The rows of a batch, those together that are padded to the same length."""
        if batch.lengths is None or not self.of_cells:
            return [np.arange(len(batch))]
        most = _steps(batch.X)
        steps = np.array([padded_to(int(length), most) for length in batch.lengths])
        return [np.flatnonzero(steps == each) for each in np.unique(steps)]

    def _explainer(self, steps: int) -> Any:
        """The explainer, against a background of as many steps."""
        if steps not in self._explainers:
            whole = self._explainers[0]
            (background,) = whole.depends_on["background"]
            self._explainers[steps] = whole.against(_placed(background[:, :steps], self._axes))
            if self._frozen is not None:
                self._frozen.enter_context(self._explainers[steps].frozen())
        return self._explainers[steps]


def said(error: Exception) -> str:
    """An error in one line, with its kind."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _in_order(made: list[tuple[np.ndarray, Any, np.ndarray]]) -> Any:
    """One table, the lines of rows in the rows' order."""
    rows = np.concatenate([rows[at] for rows, _, at in made])
    table = import_pyarrow().concat_tables([one for _, one, _ in made])
    return table.take(np.argsort(rows, kind="stable")).combine_chunks()


# ---------------------------------------------------------------------- rows of different lengths
def padded_to(length: int, most: int) -> int:
    """The steps that a row is padded to: it depends on the row's own length alone, and few are different."""
    steps = 1
    while steps < length:
        steps = max(steps + 1, int(steps * CLOSE))
    return min(steps, most)


def _steps(X: Any) -> int:
    return (X.values if isinstance(X, Sequences) else X).shape[1]


def shortened(X: Any, steps: int) -> Any:
    """Sequences without the padding behind some step."""
    if X is None:
        return None
    if isinstance(X, Sequences):
        return replace(X, values=X.values[:, :steps], step_labels=X.step_labels[..., :steps])
    return X[:, :steps]


def _with_fractions(X: Any) -> Any:
    """A table of whole numbers alone as the model takes it: where one column has fractions, all columns have them."""
    whole = isinstance(X, Wide) and X.values.dtype.kind in "iub"
    return replace(X, values=X.values.astype(np.float64)) if whole else X


def _each(X: Any) -> list[Any]:
    """The inputs, one or several."""
    return list(X.values()) if isinstance(X, dict) else list(X) if isinstance(X, (list, tuple)) else [X]


def _raws_of(explainer: Any) -> columns.Dtypes:
    """The type of what an inverse transform makes of the input, as far as a row like the background's tells."""
    background = explainer.depends_on["background"]
    if not callable(explainer.inverse_transform) or not isinstance(background, list):
        return {}
    row = np.zeros((1, *background[0].shape[1:]), columns.dtypes_of(background[0])[""])
    return {"": unscaled(row, explainer.inverse_transform).dtype}


def _placed(X: Any, axis: Any) -> Any:
    """Arrays with their rows where the model wants them; tables find the place themselves."""
    if isinstance(X, (dict, list, tuple)):
        keys = list(X) if isinstance(X, dict) else range(len(X))
        axes = [axis] * len(X) if isinstance(axis, int) else axis
        moved = {key: _moved(X[key], at) for key, at in zip(keys, axes, strict=True)}
        return moved if isinstance(X, dict) else list(moved.values())
    return _moved(X, axis if isinstance(axis, int) else axis[0])


def _moved(value: Any, axis: int) -> Any:
    if not axis or not hasattr(value, "dtype") or hasattr(value, "dims"):
        return value
    return value.movedim(0, axis) if hasattr(value, "movedim") else np.moveaxis(np.asarray(value), 0, axis)

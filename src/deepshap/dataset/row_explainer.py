"""Explain a batch of rows and return its long table: the work of every process or actor.

Rows of similar length are padded to the same length and explained together. If an explanation fails, the rows are explained in
halves, down to the row that fails. The explanations of the other rows are concatenated in the rows' order as one
``Explanation``, and written as ``explanation.storage`` describes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np

from ..errors import DeepShapError, InputError, check_choice, import_pyarrow
from ..explanation.storage import as_column, long_tables, write
from ..kernels.jit_threshold import compile_all
from ..results import Explanation, JointExplanation
from ..tables import Sequences, Wide, columns_of, plain
from .folder import DESCRIPTION
from .sources import Batch

CLOSE = 1.25  # lengths up to this factor apart are padded to the same
NOT_OF_A_ROW = (MemoryError, NotImplementedError)  # errors of the whole run, which no row is to blame for


@dataclass(frozen=True)
class Part:
    """The content of a part, a Parquet file, and what its metadata say of it: rows, failed rows by error, the largest gap."""

    content: Any
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
    on_error : "raise" or "keep"
        What is done about a row that cannot be explained.
    options : dict
        Of ``explainer(X, ...)``.
    """

    def __init__(self, explainer: Any, on_error: str, options: dict[str, Any]) -> None:
        check_choice("on_error", on_error, ("raise", "keep"))
        if options.get("additional_forward_args") is not None:
            raise InputError(
                "additional_forward_args cannot be cut into parts: only lengths can be given, lengths=True."
            )
        parameters = signature(type(explainer).__call__).parameters
        for name in options:
            if name not in parameters:
                raise InputError(f"there is no option {name}=: the explainer takes {', '.join(list(parameters)[2:])}.")
        self.on_error, self.options = on_error, options
        self.of_run: dict[str, Any] = {}  # what the metadata of its parts say of the run
        self._explainers = {0: explainer}  # by the steps that their backgrounds are cut to, 0 for all of them
        self._axes = explainer.depends_on["batch_axis"]
        players = options.get("players", "cells")
        self.of_cells = isinstance(players, str) and players == "cells"  # else values do not belong to steps
        background = explainer.depends_on["background"]
        self._expects_floats = isinstance(background, list) and "float" in str(getattr(background[0], "dtype", ""))
        self._frozen: ExitStack | None = None
        self._options_checked = False

    def __enter__(self) -> RowExplainer:
        """Take the model as it is now until the end: what is known of it and of the background is kept.

        Kernels are taken from the first part on: a part's values must not show what else its worker has explained.
        """
        compile_all()
        self._frozen = ExitStack()
        for explainer in self._explainers.values():
            self._frozen.enter_context(explainer.frozen())
        return self

    def __exit__(self, *_: object) -> None:
        if self._frozen is not None:
            self._frozen.close()
        self._frozen = None

    def share_memory_among(self, count: int) -> None:
        """Divide the memory by the number of processes that explain on this machine."""
        self._explainers[0].max_memory = max(1, self._explainers[0].max_memory // count)

    @property
    def on_gpu(self) -> bool:
        """Return whether the model computes on a GPU."""
        background = self._explainers[0].depends_on["background"]
        return isinstance(background, list) and "cuda" in str(getattr(background[0], "device", ""))

    def __call__(self, batch: Batch) -> Part:
        """Explain the rows of a part and return its content.

        Raises
        ------
        DeepShapError
            If a row cannot be explained and errors are not kept; the message says which.
        InputError
            If the options fit no row, whether errors are kept or not.
        """
        explanation, failed = self.explain(batch)
        errors = Counter(type(error).__name__ for _, error in failed)
        gap = float(np.max(explanation.gap, initial=0)) if explanation is not None and len(failed) < len(batch) else 0.0
        description = {"part": batch.number, "rows": len(batch), "errors": dict(errors), "gap": gap, **self.of_run}
        schema, tables = self._tables(batch, explanation, failed, description)
        sink = import_pyarrow().BufferOutputStream()
        write(sink, schema, tables)
        return Part(sink.getvalue(), len(batch), dict(errors), gap)

    def table(self, batch: Batch) -> Any:
        """Return the long table of some rows, as a pyarrow.Table without metadata."""
        _, tables = self._tables(batch, *self.explain(batch), {})
        return import_pyarrow().concat_tables(tables).replace_schema_metadata()

    def explain(self, batch: Batch) -> tuple[Explanation | None, list[tuple[Any, Exception]]]:
        """Return the explanation of the rows that can be explained, and id and error of the others.

        Of no such rows the explanation has the form of one, without rows; it is None where that is not known.
        """
        if self._expects_floats:
            batch = replace(batch, X=_to_floats(batch.X))
        groups = self._by_length(batch) if len(batch) else []
        pieces = [piece for rows in groups for piece in self._pieces(batch, rows)]
        good = [(rows, result) for rows, result in pieces if isinstance(result, Explanation)]
        failed = sorted((rows[0], result) for rows, result in pieces if isinstance(result, Exception))
        errors = [(batch.ids[row], error) for row, error in failed]
        if not good:
            return self._empty_explanation(batch), errors
        explanation = good[0][1] if len(good) == 1 else type(good[0][1]).concat([result for _, result in good])
        order = np.argsort(np.concatenate([rows for rows, _ in good]))
        return (explanation if (np.diff(order) == 1).all() else select_rows(explanation, order)), errors

    def _tables(
        self,
        batch: Batch,
        explanation: Explanation | None,
        failed: list[tuple[Any, Exception]],
        description: dict[str, Any],
    ) -> tuple[Any, Iterator[Any]]:
        """Return schema and long table of an explanation, with a line for each row that failed."""
        pa = import_pyarrow()
        about = {DESCRIPTION: json.dumps(description)} if description else {}
        if explanation is None:
            schema, tables = pa.schema([("row", pa.array(batch.ids).type), ("error", pa.string())], about), iter(())
        else:
            schema, tables = long_tables(explanation, len(failed), **about)
        ids = as_column(np.asarray([row for row, _ in failed], batch.ids.dtype), schema.field("row").type)
        lines = {"row": ids, "error": pa.array([format_error(error) for _, error in failed], pa.string())}
        columns = [lines.get(field.name, pa.nulls(len(failed), field.type)) for field in schema]
        return schema, (*tables, pa.Table.from_arrays(columns, schema=schema))  # type: ignore[return-value]

    # ------------------------------------------------------------------ rows that fail
    def _pieces(self, batch: Batch, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Explanation | Exception]]:
        """Yield the explanations of some rows, in halves where one of them fails, down to the row that does."""
        try:
            yield rows, self._explain(batch[rows])
            return
        except NOT_OF_A_ROW:
            raise
        except Exception as error:
            if isinstance(error, InputError) and not self._options_checked:
                self._explain_background(batch)  # raises what is wrong with the options
            cause = error.__cause__ if isinstance(error, InputError) else None  # of the model; it says more, but of ids
            failure = cause if isinstance(cause, Exception) and not isinstance(cause, IndexError) else error
        if len(rows) > 1:
            half = len(rows) // 2
            yield from self._pieces(batch, rows[:half])
            yield from self._pieces(batch, rows[half:])
        elif self.on_error == "keep":
            yield rows, failure
        else:
            kind = type(failure) if isinstance(failure, DeepShapError) else DeepShapError
            what = f"row {batch.ids[rows[0]]} (part {batch.number}) cannot be explained: {format_error(failure)}"
            raise kind(what) from failure

    def _explain_background(self, batch: Batch) -> Explanation | None:
        """Explain a row of the background; None if that cannot be explained either, or the background is a function.

        Raises
        ------
        InputError
            If the options fit no row.
        """
        explainer, options = self._explainers[0], dict(self.options)
        background = explainer._background
        if background is None or background.form.packed:
            return None
        inputs, form = background[:1].inputs, background.form
        X = dict(zip(form.names, inputs, strict=True)) if form.names else list(inputs) if form.several else inputs[0]
        if batch.targets is not None:
            options["targets"] = np.zeros((1, *batch.targets.shape[1:]), int)  # the first output, which every model has
        if batch.lengths is not None:
            options["additional_forward_args"] = (np.array([inputs[0].shape[1]]),)
        try:
            return explainer(_place_rows(X, self._axes), **options)
        except InputError:
            raise
        except DeepShapError:  # of the values, which are those of this row
            return None
        finally:
            self._options_checked = True

    def _empty_explanation(self, batch: Batch) -> Explanation | None:
        """Return the explanation of no rows, which has the columns and types of any other."""
        explanation = self._explain_background(batch)
        if explanation is None:
            return None
        explanation = select_rows(explanation, slice(0, 0))
        explanation.row_ids = batch.ids[:0]
        if batch.targets is not None:
            explanation.targets = batch.targets[:0]
        for part, raw in zip(_parts(explanation), _each(batch.raw), strict=False):
            part.display_data = np.zeros(part.data.shape, plain(raw, "raw=")[0].dtype)
        if isinstance(batch.X, Sequences) and self.of_cells:
            explanation.step_labels = np.zeros(explanation.shape[1], batch.X.step_labels.dtype)
        return self._drop_run_details(explanation)

    # ------------------------------------------------------------------ rows that do not
    def _explain(self, batch: Batch) -> Explanation:
        options = dict(self.options) if batch.targets is None else {**self.options, "targets": batch.targets}
        X, raw, explainer = batch.X, batch.raw, self._explainers[0]
        if batch.lengths is not None:
            most = _steps(X)
            if batch.lengths.max() > most:
                raise InputError(f"a row of {most} steps cannot have {batch.lengths.max()} valid ones.")
            steps = padded_length(int(batch.lengths.max()), most) if self.of_cells else most
            X, raw, explainer = cut_steps(X, steps), cut_steps(raw, steps), self._explainer(steps % most)
            options["additional_forward_args"] = (batch.lengths.astype(np.int64),)
        elif isinstance(X, Sequences):  # the model reads the padding, which is none then
            X = replace(X, lengths=np.full(len(X), X.values.shape[1]))
        explanation = explainer(_place_rows(X, self._axes), **options)
        if batch.lengths is not None and self.of_cells:
            explanation._set_lengths(batch.lengths)  # an error if the model reads what stands behind
        if raw is not None:
            features = explainer.model_features or columns_of(plain(X, "the data")[1])
            shown, _ = plain(raw, "raw=", names=features)
            for part, array in zip(_parts(explanation), _each(shown), strict=True):
                part.display_data = array
        explanation.row_ids = batch.ids
        return self._drop_run_details(explanation)

    @staticmethod
    def _drop_run_details(explanation: Explanation) -> Explanation:
        """Drop what differs from run to run, or from part to part."""
        for part in (explanation, *_parts(explanation)):
            part.compute_time = None
        for part in _parts(explanation):
            part._forget(*part._error_names[1:])  # replicates, of which parts have different numbers
        return explanation

    def _by_length(self, batch: Batch) -> list[np.ndarray]:
        """Return the rows of a batch, those together that are padded to the same length."""
        if batch.lengths is None or not self.of_cells:
            return [np.arange(len(batch))]
        most = _steps(batch.X)
        steps = np.array([padded_length(int(length), most) for length in batch.lengths])
        return [np.flatnonzero(steps == length) for length in np.unique(steps)]

    def _explainer(self, steps: int) -> Any:
        """Return the explainer, against a background of as many steps."""
        if steps not in self._explainers:
            original = self._explainers[0]
            (background,) = original.depends_on["background"]
            self._explainers[steps] = original.against(_place_rows(background[:, :steps], self._axes))
            if self._frozen is not None:
                self._frozen.enter_context(self._explainers[steps].frozen())
        return self._explainers[steps]


def format_error(error: Exception) -> str:
    """Return an error in one line, with its kind."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def select_rows(explanation: Any, rows: Any) -> Any:
    """Return some rows of an explanation, of each input where there are several."""
    if isinstance(explanation, JointExplanation):
        return type(explanation)(explanation._each(lambda part: part[rows]))
    return explanation[rows]


def _parts(explanation: Explanation) -> list[Any]:
    return [part for _, part in explanation.items()]


# ---------------------------------------------------------------------- rows of different lengths
def padded_length(length: int, most: int) -> int:
    """Return the steps that a row is padded to: it depends on the row's own length alone, and few are different."""
    steps = 1
    while steps < length:
        steps = max(steps + 1, int(steps * CLOSE))
    return min(steps, most)


def _steps(X: Any) -> int:
    return (X.values if isinstance(X, (Sequences, Wide)) else X).shape[1]


def cut_steps(X: Any, steps: int) -> Any:
    """Return sequences without the padding behind some step."""
    if X is None:
        return None
    if isinstance(X, Sequences):
        return replace(X, values=X.values[:, :steps], step_labels=X.step_labels[..., :steps])
    if isinstance(X, Wide):
        return replace(X, values=X.values[:, :steps])
    return X[:, :steps]


def _to_floats(X: Any) -> Any:
    """Return a table of whole numbers alone as the model takes it: where one column has fractions, all columns have them."""
    is_integer = isinstance(X, Wide) and X.values.dtype.kind in "iub"
    return replace(X, values=X.values.astype(np.float64)) if is_integer else X


def _each(X: Any) -> list[Any]:
    """Return the inputs, one or several; none of None."""
    if X is None:
        return []
    return list(X.values()) if isinstance(X, dict) else list(X) if isinstance(X, (list, tuple)) else [X]


def _place_rows(X: Any, axis: Any) -> Any:
    """Return arrays with their rows where the model wants them; tables find the place themselves."""
    if isinstance(X, (dict, list, tuple)):
        keys = list(X) if isinstance(X, dict) else range(len(X))
        axes = [axis] * len(X) if isinstance(axis, int) else axis
        moved = {key: _move_axis(X[key], at) for key, at in zip(keys, axes, strict=True)}
        return moved if isinstance(X, dict) else list(moved.values())
    return _move_axis(X, axis if isinstance(axis, int) else axis[0])


def _move_axis(value: Any, axis: int) -> Any:
    if not axis or not hasattr(value, "dtype") or hasattr(value, "dims"):
        return value
    return value.movedim(0, axis) if hasattr(value, "movedim") else np.moveaxis(np.asarray(value), 0, axis)

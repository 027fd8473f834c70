"""``deepshap check``: list the operations of a model, and the treatment of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..errors import InputError
from ..evaluation import check
from .data import Data, read_data
from .explain import load_model, make_source
from .models import Model, Selection, cast

OPEN_SIZE = 8  # where an exported program leaves a size open


def run(model: str, shapes: Sequence[tuple[int, ...]], data: Path | None, traceback: bool, **options: Any) -> bool:
    """Print the table of operations; return whether all have a rule."""
    loaded = load_model(model, options)
    example = _example(loaded, shapes, data, options)
    inputs = cast(example.inputs, loaded, example, options["dtype"])
    lengths = (example.lengths,) if example.passes_lengths else None
    axes = [int(options["time_first"] and array.ndim > 2) for array in inputs]
    arrays = [np.moveaxis(array, 0, axis) for array, axis in zip(inputs, axes, strict=True)]
    summary = check(
        loaded.call,
        arrays if len(arrays) > 1 else arrays[0],
        additional_forward_args=lengths,
        output=Selection(options["tensor"], (), None),
        batch_axis=axes,
    )
    click.echo(str(summary))
    click.echo()
    missing = [use.name for use in summary.uses if not use.supported]
    if missing:
        click.echo(f"{len(missing)} without a rule: {', '.join(missing)}. docs/adding-a-rule.md says what to do.")
    else:
        click.echo("Every operation has a rule: the model can be explained.")
    return not missing


def _example(model: Model, shapes: Sequence[tuple[int, ...]], data: Path | None, options: dict[str, Any]) -> Data:
    """Return two rows of data, or random numbers."""
    if data is not None:
        return read_data(data, make_source(options))[:2]
    random = np.random.default_rng(0)
    if shapes or model.inputs is None:
        if not shapes:
            raise InputError(
                "the shape of the input is not known: give --input-shape (of one row, such as 30,4) or --data."
            )
        is_integer = options["dtype"] == "int64"
        inputs = [np.zeros((2, *s), np.int64) if is_integer else random.standard_normal((2, *s)) for s in shapes]
        lengths = np.full(2, shapes[0][0]) if options["lengths"] else None
        return Data(inputs, lengths, passes_lengths=lengths is not None)
    inputs = []
    lengths = None
    for declared in model.inputs:
        rest = [OPEN_SIZE if size is None else size for size in declared.row_shape]
        is_integer = not declared.dtype.is_floating_point
        if is_integer and not rest:
            lengths = np.ones(2, np.int64)
        else:
            inputs.append(np.zeros((2, *rest), np.int64) if is_integer else random.standard_normal((2, *rest)))
    return Data(inputs, lengths, passes_lengths=lengths is not None)

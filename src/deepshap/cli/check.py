"""``deepshap check``: which operations a model uses, and how each is treated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..errors import InputError
from ..evaluation import check
from .data import Data, read_data
from .explain import model_of, source_of
from .models import Model, Selection, cast

OPEN_SIZE = 8  # where an exported program leaves a size open


def run(model: str, shapes: Sequence[tuple[int, ...]], data: Path | None, traceback: bool, **options: Any) -> bool:
    """Print the table; whether all operations have a rule."""
    loaded = model_of(model, options)
    example = _example(loaded, shapes, data, options)
    inputs = cast(example.inputs, loaded, example, options["dtype"])
    lengths = (example.lengths,) if example.passes_lengths else None
    axes = [int(options["time_first"] and one.ndim > 2) for one in inputs]
    placed = [np.moveaxis(one, 0, axis) for one, axis in zip(inputs, axes, strict=True)]
    found = check(
        loaded.call,
        placed if len(placed) > 1 else placed[0],
        additional_forward_args=lengths,
        output=Selection(options["tensor"], (), None),
        batch_axis=axes,
    )
    click.echo(str(found))
    click.echo()
    missing = [use.name for use in found.uses if not use.supported]
    if missing:
        click.echo(f"{len(missing)} without a rule: {', '.join(missing)}. docs/adding-a-rule.md says what to do.")
    else:
        click.echo("Every operation has a rule: the model can be explained.")
    return not missing


def _example(model: Model, shapes: Sequence[tuple[int, ...]], data: Path | None, options: dict[str, Any]) -> Data:
    """Two rows of data, or random numbers."""
    if data is not None:
        return read_data(data, source_of(options))[:2]
    random = np.random.default_rng(0)
    if shapes or model.inputs is None:
        if not shapes:
            raise InputError(
                "the shape of the input is not known: give --input-shape (of one row, such as 30,4) or --data."
            )
        whole = options["dtype"] == "int64"
        inputs = [np.zeros((2, *s), np.int64) if whole else random.standard_normal((2, *s)) for s in shapes]
        lengths = np.full(2, shapes[0][0]) if options["lengths"] else None
        return Data(inputs, lengths, passes_lengths=lengths is not None)
    found: list[np.ndarray] = []
    lengths = None
    for one in model.inputs:
        rest = [OPEN_SIZE if size is None else size for size in one.row_shape]
        whole = not one.dtype.is_floating_point
        if whole and not rest:
            lengths = np.ones(2, np.int64)
        else:
            found.append(np.zeros((2, *rest), np.int64) if whole else random.standard_normal((2, *rest)))
    return Data(found, lengths, passes_lengths=lengths is not None)

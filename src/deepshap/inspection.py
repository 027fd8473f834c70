"""Look at a model before it is explained: which operations it uses, and how each of them is treated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .engines.registry import engine_for
from .engines.uses import Use
from .tables import plain


@dataclass
class Inspection:
    """What ``check`` found; printed, it is a table.

    Attributes
    ----------
    uses : list of Use
        The operations in the order of their first call, those without a rule first.
    """

    uses: list[Use]

    @property
    def supported(self) -> bool:
        """Whether all operations have a rule."""
        return all(use.supported for use in self.uses)

    def __str__(self) -> str:
        rows = [("operation", "times", "treatment", "where")]
        for use in self.uses:
            places = list(dict.fromkeys(use.places))
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            rows.append((use.name, str(use.times), use.treatment, places[0] + more))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def check(
    model: Callable[..., Any],
    example: Any,
    *,
    additional_forward_args: Any = None,
    output: Any = None,
    batch_axis: int | Sequence[int] = 0,
) -> Inspection:
    """Find out which operations a model uses, and how each of them would be explained, from one run on any data.

    Parameters
    ----------
    model : torch.nn.Module or callable
        As for ``DeepExplainer``.
    example : tensor, array, table, list or dict of them
        At least one row, in the form that the model takes; random numbers will do.
    additional_forward_args, output, batch_axis
        As for ``DeepExplainer``.

    Returns
    -------
    Inspection
        ``supported``, and ``uses``, one for each operation.

    Raises
    ------
    InputError
        If the example or the model cannot be read. Errors of the model pass as they are, unless an operation without a rule
        came before.
    """
    engine = engine_for(model, example)(model, output=output, batch_axis=batch_axis)
    example, _ = plain(example, "the example", batch_axis)
    with engine.session():
        points, _ = engine.read(example, additional_forward_args)
        found = engine.uses(points)
    return Inspection(sorted(found, key=lambda use: use.supported))

"""What all pictures have in common, written once: in their docstrings, and of their options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from textwrap import fill, indent
from typing import Any, TypeVar, cast

from ..options import check_options
from .reading import check_attributions

Function = TypeVar("Function", bound=Callable[..., object])

EXPLAINED = {
    "rows": "Of one output: values (rows, steps, features), or of players (rows, players).",
    "row": "Of one row and one output: values (steps, features), or of players (players,).",
}
REFUSED = {
    "rows": "If there are several outputs, or these are not sequences",
    "row": "If there are several rows or outputs, or this is not a sequence",
}
PARAMETERS = {
    "align": (
        '"start", "end" or "relative"',
        "How sequences of different lengths are laid over each other: by their first steps, by their last steps, or "
        "stretched\nto the same length.",
    ),
    "max_display": (
        "int",
        "How many features are drawn, those with the largest values; the others are summed in one more.",
    ),
    "robust": (
        "bool",
        "Scale by what is not far out, at most three interquartile ranges above the quartiles: one enormous value does not "
        "hide all\nothers. What lies beyond is cut, and marked.",
    ),
    "unit": ("str, optional", "Of the output, and so of the attributions."),
    "time_label": ("str, optional", "Label of the time axis, by default ``explanation.time_label``."),
    "ax": ("Axes, optional", "Where to draw; panels (``ax.child_axes``) share its place. By default a new figure."),
}
RETURNS = "Returns\n-------\nAxes\n    ``ax``, or the axes of the new figure."


def picture(of: str, refuses: str = "") -> Callable[[Function], Function]:
    """Complete a picture of "rows" or a "row": its docstring by what it does not describe, and checks of its options."""

    def complete(function: Function) -> Function:
        text = inspect.cleandoc(function.__doc__ or "")
        head, _, own = text.partition("\n\nParameters\n----------\n")
        parameters = inspect.signature(function).parameters
        lines = [] if "explanation :" in own else [_described("explanation", "Explanation", EXPLAINED[of])]
        lines += [own] if own else []
        lines += [
            _described(name, *PARAMETERS[name]) for name in parameters if name in PARAMETERS and f"{name} :" not in own
        ]
        refused = REFUSED[of] + refuses + (", or ``align`` is something else" if "align" in parameters else "")
        raises = "Raises\n------\nInputError\n" + fill(
            f"{refused}.", 120, initial_indent="    ", subsequent_indent="    "
        )
        function.__doc__ = "\n\n".join([head, "Parameters\n----------\n" + "\n".join(lines), RETURNS, raises])
        return checked(function)

    return complete


def checked(function: Function) -> Function:
    """Have what a picture is of, and its options, checked before it is drawn."""
    known, name = inspect.signature(function), function.__name__

    @wraps(function)
    def draw(*given: Any, **options: Any) -> Any:
        try:
            arguments = known.bind(*given, **options).arguments
        except TypeError as error:
            raise TypeError(f"plots.{name}: {error}; it takes {', '.join(known.parameters)}.") from None
        check_options(f"plots.{name}: ", **arguments)
        if "explanation" in arguments:
            check_attributions(arguments["explanation"], name)
        return function(*given, **options)

    return cast(Function, draw)


def _described(name: str, kind: str, text: str) -> str:
    return f"{name} : {kind}\n{indent(text, '    ')}"

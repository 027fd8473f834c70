"""Plots of texts and images, shaded by the contributions of their tokens and pixels; texts also as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.textpath import TextPath

from ..errors import InputError
from ..explanation.core import Attributions
from ..explanation.labels import PADDING
from . import style
from .reading import Sequences, check_arguments, check_single, per_row, plot, read_grid, read_rows

SIZES = range(11, 5, -1)  # of the font of a text, in points
LINE = 2.1  # height of a line, in sizes of the font
BELOW = 42  # room for the colour bar, in points
OUTLINE = "#0050b0"  # of what pushes down
WIDEST = 4  # panels of an image, side by side
HATCHED = 0.25  # of the full colour, from where blue is hatched


class Html(str):
    """A piece of HTML, which notebooks show and which is a plain string otherwise."""

    def _repr_html_(self) -> str:
        return self


@dataclass(frozen=True)
class _Text:
    """One text: its words without the spaces before them, which of them have one, their attributions, which are unsure."""

    words: list[str]
    spaced: list[bool]
    values: np.ndarray
    unsure: np.ndarray
    title: str


@plot("row", ", the tokens are unknown, or there are too many for ``ax``")
def text(explanation: Attributions, *, robust: bool = False, unit: str = "", ax: Axes | None = None) -> Axes:
    """Shade the tokens of a text by what they contributed to one output.

    Red pushes the output up. Blue pushes it down, and has a dashed outline. What is below two standard errors is dotted, where
    these are known. A long text gets small letters.

    Parameters
    ----------
    explanation : Explanation
        Of one row and one output: values (steps,) or (steps, features), which are summed. The tokens are
        ``explanation.display_data`` (steps,), or else ``data``, or else ``step_labels``.
    """
    texts = _read(explanation, "text")
    check_single(len(texts), "text")
    (shown,) = texts
    is_new = ax is None
    if ax is None:
        lines = 1 + _places(shown, 9.7 * 72, SIZES[0])[-1][1]
        ax = style.new_axes(None, 10, (lines * SIZES[0] * LINE + BELOW + 40) / 72)
    ax.axis("off")
    ax.set_title(style.short(shown.title, 110), fontsize=style.SMALL + 1, loc="left")
    figure = style.get_figure(ax)
    figure.draw_without_rendering()  # sizes are known only after the layout
    if is_new:
        figure.set_layout_engine("none")  # which would draw all words once more
    width, height = style.points(ax)
    for size in SIZES:
        places = _places(shown, width, size)
        if (places[-1][1] + 1) * size * LINE + BELOW <= height + 1:
            break
    else:
        raise InputError(
            f"plots.text: {len(shown.words)} tokens do not fit into the axes; leave out ax, or use plots.text_html."
        )
    limit = style.color_limit(shown.values, robust=robust)
    for (left, line), word, value, unsure in zip(places, shown.words, shown.values, shown.unsure, strict=True):
        _draw_word(ax, word, value / limit, (left, -line * size * LINE), size, unsure)
    cax = ax.inset_axes((28 / width, 26 / height, min(0.9, 260 / width), 7 / height), label="scale of attributions")
    shades = ScalarMappable(Normalize(-limit, limit), style.EVIDENCE)
    style.evidence_bar(shades, shown.values, style.with_unit("attribution", unit), cax, orientation="horizontal")
    return ax


def _draw_word(ax: Axes, word: str, strength: float, place: tuple[float, float], size: float, unsure: bool) -> None:
    box = {"boxstyle": "square,pad=0.2", "facecolor": _shade(strength), "linewidth": 0}
    if unsure:
        box |= {"edgecolor": "0.55", "hatch": "...."}
    if strength < -1 / 8:
        box |= {"edgecolor": OUTLINE, "linewidth": 1, "linestyle": "--"}
    ax.annotate(
        style.short(word, 60),
        (0, 1),
        (place[0] + 0.3 * size, place[1] - 0.3 * size),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=size,
        va="top",
        bbox=box,
    ).set_in_layout(False)


def _places(shown: _Text, width: float, size: float) -> list[tuple[float, int]]:
    """Lay words out in lines of a width: where each one begins, in points, and its line."""
    places = []
    left, line = 0.0, 0
    for word, spaced in zip(shown.words, shown.spaced, strict=True):
        needs = _width(style.short(word, 60)) * size + 0.4 * size
        left += 0.25 * size * (spaced and left > 0)
        if left + needs > width and left > 0:
            left, line = 0.0, line + 1
        places.append((left, line))
        left += needs
    return places


@lru_cache(maxsize=4096)
def _width(word: str) -> float:
    """Return the width of a word in units of the size of the font."""
    return float(TextPath((0, 0), word, size=10).get_extents().x1) / 10 if word.strip() else 0.3


# ---------------------------------------------------------------------- HTML
@check_arguments
def text_html(explanation: Attributions, *, robust: bool = False, unit: str = "") -> Html:
    """Shade the tokens of texts by what they contributed to one output, as HTML that notebooks show.

    Red pushes the output up. Blue pushes it down, and has a dashed outline. Each token has its number as a tooltip. What is
    below two standard errors is underlined with dots, where these are known.

    Parameters
    ----------
    explanation : Explanation
        Of one output and one row or several: values ([rows, ]steps) or ([rows, ]steps, features), which are summed. The
        tokens are ``explanation.display_data`` ([rows, ]steps), or else ``data``, or else ``step_labels``.
    robust : bool
        Shade by what is not far out, at most three interquartile ranges above the quartiles.
    unit : str, optional
        Of the output, and so of the attributions.

    Returns
    -------
    str
        A ``<div>`` without scripts or outside resources; tokens and names are escaped.

    Raises
    ------
    InputError
        If there are several outputs, or the tokens are unknown.

    Examples
    --------
    >>> html = deepshap.plots.text_html(explanation)
    """
    texts = _read(explanation, "text_html")
    limit = style.color_limit(np.concatenate([shown.values for shown in texts]), robust=robust)
    paragraphs = "".join(_paragraph(shown, limit) for shown in texts)
    scale = "".join(_span(style.number(share * limit), share, "", False) for share in (-1, -0.5, 0, 0.5, 1))
    caption = (
        f"<div style='font-size:85%;margin-top:.6em'>{escape(style.with_unit('attribution', unit))}: {scale}</div>"
    )
    look = "background:#fff;color:#000;font-family:sans-serif;line-height:1.9;padding:.4em;max-width:60em"
    return Html(f"<div style='{look}'>{paragraphs}{caption}</div>")


def _paragraph(shown: _Text, limit: float) -> str:
    words = "".join(
        " " * spaced + _span(word, value / limit, style.number(value), unsure)
        for word, spaced, value, unsure in zip(shown.words, shown.spaced, shown.values, shown.unsure, strict=True)
    )
    return f"<div style='font-size:85%;color:#444'>{escape(shown.title)}</div><p style='margin:0 0 .8em'>{words}</p>"


def _span(word: str, strength: float, tooltip: str, unsure: bool) -> str:
    outline = f"outline:1px dashed {OUTLINE};outline-offset:-1px;" if strength < -1 / 8 else ""
    outline += "text-decoration:underline dotted;" if unsure else ""
    style = f"background:{to_hex(_shade(strength))};{outline}padding:.15em .2em"
    return f"<span title='{escape(tooltip)}' style='{style}'>{escape(word)}</span>"


def _shade(strength: float) -> tuple[float, float, float, float]:
    return style.EVIDENCE(0.5 + float(np.clip(strength, -1, 1)) / 2)


# ---------------------------------------------------------------------- tokens
def _read(explanation: Attributions, what: str) -> list[_Text]:
    rows = read_rows(explanation, what, text=True)
    per_token, errors = rows.values.sum(2), rows.error_of(lambda array: array.sum(2))
    unsure = np.zeros(per_token.shape, bool) if errors is None else np.abs(per_token) < style.ERRORS * errors
    tokens = _tokens(explanation, per_token.shape[1 - explanation._rows :], what).reshape(per_token.shape)
    texts = []
    lengths = np.maximum(per_row(explanation.lengths, *per_token.shape).astype(int), 1)
    for row, length in enumerate(lengths):
        parts = [rows.rows[row], rows.output, f"base value {style.number(rows.base[row], False)}"]
        if not rows.complete:
            parts.append(f"sum of what is shown {style.number(rows.shown[row], False)}")
        output = rows.shown if rows.complete or rows.outputs is None else rows.outputs
        parts.append(f"output {style.number(output[row], False)}")
        is_word = ~np.isin(np.char.lower(tokens[row].astype(str)), PADDING)
        is_word = (is_word | (not is_word.any())) & (np.arange(len(is_word)) < length)
        padding = per_token[row, ~is_word].sum()
        title = " · ".join(filter(None, [*parts, f"padding {style.number(padding)}" if padding else ""]))
        title += "" if errors is None else f" · {style.DOTTED}"
        words = _split_spaces(list(map(str, tokens[row, is_word])))
        texts.append(_Text(*words, per_token[row, is_word], unsure[row, is_word], title))
    return texts


def _tokens(explanation: Attributions, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Find the words, of the given shape ([rows, ]steps); numbers with a point are values of features, no words."""
    for tokens in (explanation.display_data, explanation.data, explanation.step_labels):
        if tokens is not None and np.shape(tokens) == shape and np.asarray(tokens).dtype.kind != "f":
            return np.asarray(tokens)
    labels = explanation.step_labels
    if labels is not None and np.shape(labels) == shape[-1:]:
        return np.broadcast_to(np.asarray(labels), shape)
    raise InputError(
        f"plots.{what} needs the words: set explanation.display_data to an array of tokens of shape {shape}."
    )


def _split_spaces(tokens: Sequence[str]) -> tuple[list[str], list[bool]]:
    """Take the marks of spaces off tokens: real spaces, those of byte pairs and sentence pieces, ## of word pieces."""
    starts = [token[:1] in (" ", "Ġ", "▁") or (i > 0 and tokens[i - 1][-1:] == " ") for i, token in enumerate(tokens)]
    inner = [i > 0 and token.startswith("##") for i, token in enumerate(tokens)]
    if any(inner) or not any(starts):
        starts = [
            not within and token not in {".", ",", ";", ":", "!", "?", ")"}
            for within, token in zip(inner, tokens, strict=True)
        ]
    words = [token[2:] if within else token.lstrip("Ġ▁") for within, token in zip(inner, tokens, strict=True)]
    return [word.strip(" ").replace("\n", "⏎").replace("\t", "⇥") for word in words], starts


# ---------------------------------------------------------------------- images
@plot("row", ", it is not of images (channels, height, width), or where the channels are is unclear")
def image(
    explanation: Attributions,
    *,
    channels: Literal["first", "last"] | None = None,
    max_display: int = 6,
    robust: bool = False,
    unit: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Lay the attributions of one image or grid over it: of all channels together, and of each.

    The ground is the input in greys, the average of its channels; a picture of one or three channels also stands by itself. Red
    pushes the output up; blue pushes it down, and is hatched where it is strong.

    Parameters
    ----------
    explanation : Explanation
        Of one row and one output: values (height, width), (channels, height, width) or (height, width, channels).
    channels : "first" or "last", optional
        Where the channels are, by default the shorter one of the first and the last axis.
    max_display : int
        How many channels have a panel of their own; the others are summed in one more.
    """
    sequence, (height, width) = read_grid(explanation, "image", channels)
    check_single(len(sequence.values), "image")
    drawn = _image_panels(sequence, (height, width), max_display)
    lines = -(-len(drawn) // WIDEST)
    across = min(len(drawn), WIDEST)
    size = float(np.clip(2.4 * height / width, 0.8, 4))
    ax = style.new_axes(ax, 2.4 * across + 1, lines * (size + 0.35) + 0.5)
    panels = style.Panels(ax, [size] * lines, [2.4] * across + [0.12], gaps=(0.35, 0.12))
    limit = style.color_limit(*[values for _, _, values in drawn if values is not None], robust=robust)
    for place, (name, ground, values) in enumerate(drawn):
        panel = panels(*divmod(place, WIDEST), label=name)
        _draw_image(panel, ground, values, limit)
        panel.set_title(style.short(name), fontsize=style.font_size(panel, name, style.SMALL + 1))
    shades = ScalarMappable(Normalize(-limit, limit), style.EVIDENCE)
    label = style.with_unit("attribution", unit)
    style.evidence_bar(shades, sequence.values, label, panels.bar(0, across, "scale of attributions"))
    output = sequence.shown[0] if sequence.outputs is None else sequence.outputs[0]
    base, output = (style.number(float(value), False) for value in (sequence.base[0], output))
    style.write_title(ax, sequence.rows[0], sequence.output, f"base value {base}", f"output {output}", pad=18)
    return ax


def _image_panels(
    sequence: Sequences, size: tuple[int, int], most: int
) -> list[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """Return name, background and attributions of each panel."""
    count = len(sequence.features)
    values, data = (
        sequence.values[0].reshape(*size, count),
        None if sequence.data is None else sequence.data[0].reshape(*size, count),
    )
    ground = None if data is None else data.mean(-1)
    drawn: list[tuple[str, np.ndarray | None, np.ndarray | None]] = []
    if data is not None and count in (1, 3):
        drawn.append(("input", _unit(data) if count == 3 else ground, None))
    drawn.append(("attributions" if count == 1 else "all channels", ground, values.sum(-1)))
    if count == 1:
        return drawn
    order = np.argsort(-np.abs(values).sum((0, 1)), kind="stable")
    largest = np.sort(order if count <= most + 1 else order[:most])
    drawn += [(sequence.features[c], None if data is None else data[..., c], values[..., c]) for c in largest]
    rest = np.setdiff1d(order, largest)
    return [*drawn, *([(f"other {len(rest)} channels", None, values[..., rest].sum(-1))] if len(rest) else [])]


def _unit(data: np.ndarray) -> np.ndarray:
    """Scale values to 0 ... 1."""
    low, high = np.nanmin(data), np.nanmax(data)
    return (data - low) / ((high - low) or 1)


def _draw_image(ax: Axes, ground: np.ndarray | None, values: np.ndarray | None, limit: float) -> None:
    """Draw the ground in greys, light ones below attributions, and these as red and blue that let it through."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(color="0.8", linewidth=0.6)
    if ground is not None:
        look: dict[str, Any] = {} if ground.ndim == 3 else {"cmap": "Greys_r", "alpha": 1 if values is None else 0.45}
        ax.imshow(ground, **look)
    if values is None:
        return
    shades = style.EVIDENCE(np.where(values > 0, 1.0, 0.0))
    shades[..., 3] = np.clip(np.abs(values) / limit, 0, 1) ** 0.8 * (0.85 if ground is not None else 1)
    ax.imshow(shades)
    strong = values < -HATCHED * limit
    if strong.any() and min(values.shape) > 1:
        hatched = ax.contourf(strong, levels=[0.5, 1.5], colors="none", hatches=["/////"])
        hatched.set(edgecolor="white", linewidth=0)

"""Images and other grids: attributions laid over what was seen."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from ..explanation.core import Attributions
from . import style
from .documentation import picture
from .reading import Sequences, check_single, read_grid

WIDEST = 4  # panels side by side
HATCHED = 0.25  # of the full colour, from where blue is hatched


@picture("row", ", it is not of images (channels, height, width), or where the channels are is unclear")
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
    one, (height, width) = read_grid(explanation, "image", channels)
    check_single(len(one.values), "image")
    drawn = _panels(one, (height, width), max_display)
    lines = -(-len(drawn) // WIDEST)
    across = min(len(drawn), WIDEST)
    size = float(np.clip(2.4 * height / width, 0.8, 4))
    ax = style.new_axes(ax, 2.4 * across + 1, lines * (size + 0.35) + 0.5)
    panels = style.Panels(ax, [size] * lines, [2.4] * across + [0.12], gaps=(0.35, 0.12))
    limit = style.limit_of(*[values for _, _, values in drawn if values is not None], robust=robust)
    for place, (name, ground, values) in enumerate(drawn):
        panel = panels(*divmod(place, WIDEST), label=name)
        _draw(panel, ground, values, limit)
        panel.set_title(style.short(name), fontsize=style.fitting(panel, name, style.SMALL + 1))
    shades = ScalarMappable(Normalize(-limit, limit), style.EVIDENCE)
    label = style.with_unit("attribution", unit)
    style.evidence_bar(shades, one.values, label, panels.bar(0, across, "scale of attributions"))
    output = one.shown[0] if one.outputs is None else one.outputs[0]
    base, output = (style.number(float(value), False) for value in (one.base[0], output))
    style.write_title(ax, one.rows[0], one.output, f"base value {base}", f"output {output}", pad=18)
    return ax


def _panels(one: Sequences, size: tuple[int, int], most: int) -> list[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """Name, ground and attributions of each panel."""
    count = len(one.features)
    values, data = one.values[0].reshape(*size, count), None if one.data is None else one.data[0].reshape(*size, count)
    ground = None if data is None else data.mean(-1)
    drawn: list[tuple[str, np.ndarray | None, np.ndarray | None]] = []
    if data is not None and count in (1, 3):
        drawn.append(("input", _unit(data) if count == 3 else ground, None))
    drawn.append(("attributions" if count == 1 else "all channels", ground, values.sum(-1)))
    if count == 1:
        return drawn
    order = np.argsort(-np.abs(values).sum((0, 1)), kind="stable")
    kept = np.sort(order if count <= most + 1 else order[:most])
    drawn += [(one.features[c], None if data is None else data[..., c], values[..., c]) for c in kept]
    rest = np.setdiff1d(order, kept)
    return [*drawn, *([(f"other {len(rest)} channels", None, values[..., rest].sum(-1))] if len(rest) else [])]


def _unit(data: np.ndarray) -> np.ndarray:
    """Bring values to 0 ... 1."""
    low, high = np.nanmin(data), np.nanmax(data)
    return (data - low) / ((high - low) or 1)


def _draw(ax: Axes, ground: np.ndarray | None, values: np.ndarray | None, limit: float) -> None:
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

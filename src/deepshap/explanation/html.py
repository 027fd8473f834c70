"""The summary of an explanation in notebooks: HTML for light and dark themes, without scripts or outside resources."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from ..explanation.labels import as_texts, duration, names_for, numbered, plural
from .core import Attributions
from .long_form import axis_names, column_name

BLOCK = 2**22  # values that are looked at a time
MOST_BARS, MOST_CELLS, MOST_NAMES = 10, 400, 4
COLOUR = "#6f80cf"  # readable on white and on black
MUTED = "opacity:.65"


def summary(explanation: Attributions) -> str:
    """Return shape, outputs, base values, gap and the importance of features and steps as HTML."""
    parts = explanation.items()
    first = parts[0][1]
    lines = [
        _heading(type(explanation).__name__, [_shape(name, part) for name, part in parts]),
        _facts_as_html(_facts(first)),
    ]
    for name, part in parts:
        lines += _importance(name, part)
    return f'<div style="font:13px/1.5 system-ui,sans-serif;color:inherit;max-width:760px">{"".join(lines)}</div>'


def text(explanation: Attributions) -> str:
    """Return the same in a few lines, without the importance."""
    parts = explanation.items()
    facts = "; ".join(
        f"{name}: {fact}".replace("converged: ", "converged ") for name, fact in _facts(parts[0][1]).items()
    )
    return "\n  ".join([f"{type(explanation).__name__}:", *(_shape(name, part) for name, part in parts), facts])


def _heading(name: str, shapes: list[str]) -> str:
    return f"<div><b>{escape(name)}</b> {escape('; '.join(shapes))}</div>"


def _shape(name: Any, part: Attributions) -> str:
    """Return the sizes of the axes of ``values``, each with its name."""
    words = [("output" if name.startswith("output") else name.partition("axis")[0]) for name in axis_names(part)]
    words = [column_name(word, part.players) for word in words]  # of players: steps, windows, groups
    sizes = [plural(size, word) if word else f"{size:,}" for size, word in zip(part.shape, words, strict=True)]
    text = " × ".join(sizes) if part._rows else f"1 row: {' × '.join(sizes)}" if sizes else "1 number"
    return text if name is None else f"{name}: {text}"


def _facts(part: Attributions) -> dict[str, str]:
    """Return the facts that hold for the whole explanation, as texts."""
    facts = {
        "model": part.model,
        "background": _background(part.background),
        "explained": part.explained,
        "outputs": _names(part.output_names) if part.output_dims else None,
        "base values": _base_values(part),
        "largest gap": None if part.gap is None or not np.size(part.gap) else f"{np.max(part.gap):.2g}",
        "method": part.method,
        "largest standard error": None
        if part.standard_errors is None
        else f"{part.standard_errors.max(initial=0):.2g}",
        "converged": None if part.converged is None else _format_converged(np.atleast_1d(part.converged)),
        "time": None if part.compute_time is None else duration(part.compute_time),
    }
    return {name: text for name, text in facts.items() if text is not None}


def _format_converged(reached: np.ndarray) -> str:
    return f"on {int(reached.sum()):,} of {plural(len(reached), 'row')}"


def _facts_as_html(facts: dict[str, str]) -> str:
    items = [
        f'<span style="margin-right:18px;white-space:nowrap"><span style="{MUTED}">{name}</span> {escape(text)}</span>'
        for name, text in facts.items()
        if text
    ]
    return f'<div style="margin:2px 0 6px">{" ".join(items)}</div>'


def _background(background: dict[str, Any] | None) -> str | None:
    details = dict(background or {})
    count = details.pop("rows", None)
    rows = [] if count is None else [plural(count, "row")]
    return (
        ", ".join([*rows, *(str(v) if key == "description" else f"{key}: {v}" for key, v in details.items())]) or None
    )


def _names(names: Any) -> str | None:
    if not isinstance(names, (list, tuple, np.ndarray)):
        return None
    flat = list(map(str, names if np.ndim(names) < 2 else np.unique(np.asarray(names, dtype=str))))
    return ", ".join(flat[:MOST_NAMES]) + (f", … ({len(flat)})" if len(flat) > MOST_NAMES else "")


def _base_values(part: Attributions) -> str | None:
    """Return the base value of each output; their mean if each row has its own."""
    if part.base_values is None:
        return None
    base = np.asarray(part.base_values, dtype=np.float64)
    if not base.size:
        return None
    rows = base.reshape(len(base) if part._rows and base.ndim else 1, -1)
    varied = bool(np.ptp(rows, axis=0).any())
    texts = [f"{value:.4g}" for value in rows.mean(0)[:MOST_NAMES]]
    return ", ".join(texts) + (", …" if rows.shape[1] > MOST_NAMES else "") + (" (mean)" if varied else "")


# ---------------------------------------------------------------------- importance
def _importance(name: Any, part: Attributions) -> Iterator[str]:
    """Yield bars of the most important features, and a strip of the steps."""
    steps = part._steps_at
    axes = part._inputs - part._rows
    values = np.asarray(part.values)
    if axes not in (1, 2) or not values.size or values.dtype.kind not in "fiu":
        return
    size = _mean_size(part, values)  # the axes of one row
    title = "mean |attribution|" + ("" if name is None else f" to {name}")
    features = None if axes == 1 and steps is not None else size.sum(0) if axes == 2 else size
    if features is not None and len(features) > 1:
        word = column_name("feature", part.players)
        yield _caption(f"{title} by {word}")
        yield _bars(names_for(part.feature_names, len(features)) or numbered("Feature", len(features)), features, word)
    if steps is not None:
        per_step = (size.sum(1) if axes == 2 else size) * _share_of_padding(part, len(size))
        yield _caption(f"{title} by step")
        yield _strip(per_step, part.step_labels)


def _mean_size(part: Attributions, values: np.ndarray) -> np.ndarray:
    """Return the mean |attribution| over rows and outputs, in the shape of a row."""
    rows = values if part._rows else values[None]
    outputs = tuple(range(rows.ndim - len(part.output_dims), rows.ndim))
    blocks = np.array_split(rows, max(1, min(len(rows), rows.size // BLOCK)))
    total = sum(np.abs(block, dtype=np.float64).sum(0) for block in blocks) / len(rows)
    return np.asarray(total).mean(tuple(axis - 1 for axis in outputs))


def _share_of_padding(part: Attributions, steps: int) -> np.ndarray:
    """Return the factor (steps,) that turns a mean over all rows into one over the rows that have the step."""
    lengths = np.atleast_1d(steps if part._reached is None else part._reached)
    return len(lengths) / np.maximum((np.arange(steps)[:, None] < lengths).sum(1), 1)


def _caption(text: str) -> str:
    return f'<div style="{MUTED};margin-top:4px">{escape(text)}</div>'


def _bars(names: list[str], sizes: np.ndarray, word: str) -> str:
    order = np.argsort(-sizes, kind="stable")[:MOST_BARS]
    largest = float(sizes.max()) or 1.0
    lines = [_bar(names[i], sizes[i], sizes[i] / largest) for i in order]
    if len(order) < len(names):
        lines.append(f'<div style="{MUTED};padding-left:158px">and {len(names) - len(order):,} other {word}s</div>')
    return "".join(lines)


def _bar(name: str, size: float, share: float) -> str:
    label = "flex:0 0 150px;text-align:right;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
    bar = f"display:block;height:9px;border-radius:2px;background:{COLOUR};width:{100 * share:.1f}%"
    return (
        f'<div style="display:flex;align-items:center;gap:8px;line-height:1.35"><span style="{label}">{escape(name)}</span>'
        f'<span style="flex:1 1 auto"><span style="{bar}"></span></span>'
        f'<span style="flex:0 0 76px;font-variant-numeric:tabular-nums">{size:.4g}</span></div>'
    )


def _strip(sizes: np.ndarray, labels: Any) -> str:
    """Return a strip of cells, the darker the more important; neighbours share a cell (their mean) if there are many."""
    cells = [float(part.mean()) for part in np.array_split(sizes, min(len(sizes), MOST_CELLS))]
    largest = max(cells) or 1.0
    width = 700 / len(cells)
    rects = "".join(
        f'<rect x="{i * width:.2f}" y="0" width="{width:.2f}" height="18" fill="{COLOUR}" fill-opacity="{cell / largest:.3f}"/>'
        for i, cell in enumerate(cells)
    )
    shared = labels is not None and np.ndim(labels) == 1
    first, last = as_texts(np.asarray(labels)[[0, -1]]) if shared else ("0", str(len(sizes) - 1))
    return (
        f'<svg role="img" aria-label="importance of the steps" viewBox="0 0 700 18" preserveAspectRatio="none" '
        f'style="display:block;width:100%;height:18px;outline:1px solid {COLOUR}55">{rects}</svg>'
        f'<div style="display:flex;justify-content:space-between;{MUTED}"><span>step {escape(str(first))}</span>'
        f"<span>largest {float(sizes.max()):.4g}</span><span>{escape(str(last))}</span></div>"
    )

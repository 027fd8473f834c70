"""The cards of key facts: what was explained, how exactly, and how good the model is."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from ..names import duration, plural
from .content import TOLERANCE, Content, Part
from .examples import Judged

ROUGH = 1e-2  # a relative gap that half precision explains
LONG = 30  # letters, that are no heading


def facts(content: Content, judged: Judged) -> str:
    """The cards of key facts."""
    shapes = [_shape(part) for part in content.parts]
    count = content.outputs.shape[1]
    cards = [
        ("Examples", f"{len(content):,}", "; ".join(shapes)),
        ("Outputs", f"{count:,}", _some(content.output_names) if content.output_names.ndim == 1 and count > 1 else ""),
        _background(content.background),
        _verdict(content),
    ]
    if content.explained or count == 1:
        name = content.explained or str(content.output_names.flat[0])
        of = f"one of {len(content.classes):,} outputs" if content.classes and len(content.classes) > 1 else ""
        cards[1] = ("Explained output", name, of)
    if content.model:
        cards.insert(0, ("Model", content.model, ""))
    cards += _accuracy(content)
    if judged.wrong is not None:
        right = len(content) - int(judged.wrong.sum())
        cards.append(("Correct", f"{right / len(content):.1%}", f"{right:,} of {plural(len(content), 'example')}"))
    elif judged.error is not None:
        cards.append(("Mean error", number(float(np.nanmean(judged.error)), 4), judged.meaning))
    if content.compute_time is not None:
        cards.append(("Time to explain", duration(content.compute_time), ""))
    return "\n".join(_card(*card) for card in cards)


def _accuracy(content: Content) -> list[tuple[str, str, str]]:
    """Cards that tell what was done, and how exact it is; none where there is nothing to tell."""
    method, players, cards = content.method, content.players, []
    if method or players:
        cards.append(("Method", method or "not recorded", f"values of {players}" if players else ""))
    if content.reliability:
        verdict, _, grounds = content.reliability.partition(". ")
        cards.append(("Reliability", verdict, grounds))
    errors = [part.errors.errors.max() for part in content.parts if part.errors is not None]
    if errors:
        reached, detail = content.converged, ""
        if reached is not None:
            detail = f"{int(reached.sum()):,} of {plural(len(reached), 'example')} as exact as asked for"
        cards.append(("Largest standard error", number(float(max(errors)), 2), detail))
    return cards


def _card(name: str, value: str, detail: str, state: str = "") -> str:
    mark = {"good": "✓ ", "rough": "≈ ", "bad": "✗ "}.get(state, "")
    size = " long" if len(value) > LONG else ""
    return (
        f'<div class="fact {state}{size}" data-fact="{escape(name)}"><dt>{escape(name)}</dt><dd>'
        f"<strong>{mark}{escape(value)}</strong><small>{escape(detail)}</small></dd></div>"
    )


def _verdict(content: Content) -> tuple[str, str, str, str]:
    if content.gap is None:
        return "Largest gap", "not checked", "outputs or base values are not part of this explanation", ""
    largest = float(content.gap.max())
    if largest <= TOLERANCE:
        return "Largest gap", number(largest, 2), "of the outputs’ scale: attributions add up to the outputs", "good"
    if largest <= ROUGH:
        return (
            "Largest gap",
            number(largest, 2),
            "of the outputs’ scale: they add up as roughly as in half precision",
            "rough",
        )
    return "Largest gap", number(largest, 2), "of the outputs’ scale: attributions do not add up to the outputs", "bad"


def _background(background: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if not background:
        return "Background", "not recorded", ""
    rows = background.get("rows")
    rest = [
        f"{value}" if key == "description" else f"{key}: {value}" for key, value in background.items() if key != "rows"
    ]
    return (
        "Background",
        "given" if rows is None else plural(rows, "row") if isinstance(rows, int) else str(rows),
        "; ".join(rest),
    )


def _shape(part: Part) -> str:
    _, steps, features, _ = part.values.shape
    shortest = int(part.lengths.min())
    spread = f"{shortest:,} to " if shortest < steps else ""
    axes = {
        "sequence": f"{spread}{plural(steps, 'step')} × {plural(features, 'feature')}",
        "image": f"{steps:,} × {features:,} pixels",
        "text": f"{spread}{plural(steps, 'word')}",
        "table": plural(features, "feature"),
    }
    return f"{part.name}: {axes[part.kind]}" if part.name else axes[part.kind]


def _some(names: np.ndarray) -> str:
    texts = [str(name) for name in names[:4]]
    return ", ".join(texts) + (", …" if len(names) > 4 else "")


def number(value: float, digits: int) -> str:
    """A number as the scripts write it."""
    text = f"{value:.{digits}g}" if 1e-4 <= abs(value) < 10**digits or not value else f"{value:.{digits - 1}e}"
    head, _, power = text.partition("e")
    head = head.rstrip("0").rstrip(".") if "." in head else head
    return (f"{head}e{int(power)}" if power else head).replace("-", "−")

"""Fill the page of a report.

The page is one HTML file: a Jinja2 template (assets/page.html.jinja) with the style, plotly and the scripts of the page inlined.
A content security policy allows these scripts, by their hashes, and no other; nothing can be fetched. The scripts read three
kinds of data: ``meta``, JSON with names and descriptions; ``rows``, the numbers of the table; and one packed blob for each
example and for each input's importance, which the browser unpacks when they are chosen.

A packed blob is, after base64 and gzip, a little-endian ``uint32`` with the length of a JSON header, the header, and then the
arrays of the header one after the other. Numbers lie with their first bytes together, then their second bytes, and so on: bytes
of one kind compress better.

Examples are added in the order of ``examples.priorities`` until the file has the size that was asked for.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from ..errors import InputError
from ..explanation.core import Attributions
from ..explanation.labels import duration, plural
from .content import TOLERANCE, Content, Part, read
from .examples import Judgement, judge_predictions, priorities, select_outputs
from .overview import (
    Breakdown,
    Importance,
    decimal,
    faithfulness_section,
    group_masks,
    importance,
    natural_order,
    number,
)

try:
    from jinja2 import Environment
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise ImportError("the report needs plotly and jinja2: pip install 'deepshap[report]'") from error

SCRIPTS = ("data.js", "format.js", "charts.js", "overview.js", "beside.js", "example.js", "table.js", "app.js")
MOST_ROWS = 5000  # in one page; nobody looks through more, and each is an element of the page
FEW_ROWS = 50  # that should fit before outputs are left out
SPARE = 5_000  # bytes for what is longer once rows are there: the notice, empty lists
MOST_CLASSES = 30  # in a confusion matrix
ROUGH = 1e-2  # a relative gap that half precision explains

Overall = Sequence[Importance | Breakdown]  # what there is of all rows together


@dataclass(frozen=True)
class Choice:
    """Rows and outputs that the page shows, in order, and the packed rows."""

    rows: np.ndarray
    outputs: np.ndarray
    packed: list[str]


def render(
    explanation: Attributions,
    title: str | None,
    max_megabytes: float,
    seed: int,
    groups: Any = None,
    faithfulness: Any = None,
) -> bytes:
    """Return the page."""
    content = read(explanation)
    judged = judge_predictions(content)
    masks = group_masks(content, judged, groups)
    highest = content.outputs.argmax(1) if _comparable(content, judged) else None
    overall = [importance(part, highest) for part in content.parts]
    beside = [Breakdown.of(part, masks, highest, seed) for part in content.parts]
    scripts = {"plotly": get_plotlyjs(), "application": _application()}
    template = _template()
    title = title or (f"{content.model}: explanation" if content.model else "Explanation")
    more = {
        "title": title,
        "groups": [{"name": name, "count": int(mask.sum())} for name, mask in masks.items()],
        "ownGroups": groups is not None,
        "faithfulness": faithfulness_section(faithfulness),
    }

    def fill(choice: Choice, blobs: Mapping[str, str]) -> bytes:
        return template.render(
            title=title,
            policy="; ".join(_policy(scripts.values())),
            style=_asset("report.css"),
            facts=_facts(content, judged),
            shown_rows=len(choice.rows),
            all_rows=len(content),
            shown_outputs=len(choice.outputs),
            all_outputs=content.outputs.shape[1],
            judged=judged.error is not None,
            classes=judged.true is not None,
            seed=seed,
            meta=_meta(content, judged, overall, choice) | more,
            blobs=blobs,
            **scripts,
        ).encode()

    nothing = Choice(np.arange(0), np.arange(content.outputs.shape[1]), [])
    budget = int(max_megabytes * 1e6) - len(fill(nothing, {})) - SPARE
    choice = _choose(content, judged, [*overall, *beside], budget, seed)
    blobs = {f"example-{i}": packed for i, packed in enumerate(choice.packed)}
    blobs |= {f"overall-{i}": pack(part.packed(choice.outputs)) for i, part in enumerate(overall)}
    blobs |= {f"beside-{i}": pack(part.packed(choice.outputs)) for i, part in enumerate(beside)}
    blobs["rows"] = pack(_columns(content, judged, choice))
    return fill(choice, blobs)


# ---------------------------------------------------------------------- the file
def _template() -> Any:
    """Return the page's template. It escapes all values; only scripts, the style and JSON are marked as safe in it."""
    environment = Environment(autoescape=True, keep_trailing_newline=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}
    return environment.from_string(_asset("page.html.jinja"))


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _application() -> str:
    return "(() => {\n'use strict';\n" + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();\n"


def _policy(scripts: Any) -> list[str]:
    """Return a content security policy: these scripts run and no others, and nothing may be fetched."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    return [
        "default-src 'none'",
        f"script-src {hashes}",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def pack(content: Mapping[str, Any]) -> str:
    """Pack numeric arrays, and lists of anything that JSON can hold, under their names."""
    header, payload = {}, []
    for name, item in content.items():
        if isinstance(item, np.ndarray):
            item = np.ascontiguousarray(item)
            bytes_ = item.view(np.uint8).reshape(item.size, item.itemsize).T.tobytes() if item.size else b""
            header[name] = {"type": item.dtype.name, "shape": item.shape, "bytes": len(bytes_)}
        else:
            bytes_ = json.dumps(item, ensure_ascii=False, allow_nan=False).encode()
            header[name] = {"type": "json", "bytes": len(bytes_)}
        payload.append(bytes_)
    head = json.dumps(header).encode()
    blob = len(head).to_bytes(4, "little") + head + b"".join(payload)
    return base64.b64encode(gzip.compress(blob, compresslevel=6, mtime=0)).decode("ascii")


# ---------------------------------------------------------------------- what fits
def _choose(content: Content, judged: Judgement, overall: Overall, budget: int, seed: int) -> Choice:
    order = priorities(content, judged, seed)[:MOST_ROWS]
    count = content.outputs.shape[1]
    if count > 1:
        count = _outputs_that_fit(content, overall, order, budget)
    outputs = select_outputs(content, judged, count)
    budget -= sum(len(pack(part.packed(outputs))) for part in overall)
    names = 2 * max(_size(str(name)) for name in content.output_names.flat)  # what is predicted, what is true
    rows, packed = [], []
    for row in order:
        blob = _pack_row(content.parts, row, outputs)
        words = [_size(text) + 1 for part in content.parts for text in part.words(row)]  # in the table, as texts are
        numbers = 200 + 12 * (4 + 6 * len(outputs)) + names + 4 * _size(content.row_ids[row])
        budget -= len(blob) + numbers + sum(words)
        if budget < 0:
            break
        packed.append(blob)
        rows.append(row)
    if not rows:
        raise InputError(
            "not even one row fits into the report: raise max_megabytes, or sum over the steps or the features first, "
            "explanation.over_features() or explanation.over_time()."
        )
    sequence = np.argsort(rows)
    return Choice(np.array(rows)[sequence], outputs, [packed[i] for i in sequence])


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _outputs_that_fit(content: Content, overall: Overall, order: np.ndarray, budget: int) -> int:
    """Return how many outputs leave room for a few rows, from the sizes of a page with one output and with two."""
    sample = order[:: max(1, len(order) // 6)][:6]

    def size(outputs: int) -> float:
        chosen = np.arange(outputs)
        rows = np.mean([len(_pack_row(content.parts, row, chosen)) for row in sample])
        return sum(len(pack(part.packed(chosen))) for part in overall) + min(FEW_ROWS, len(order)) * float(rows)

    size_of_one, size_of_two = size(1), size(2)
    return int(np.clip(1 + (budget - size_of_one) // max(size_of_two - size_of_one, 1.0), 1, content.outputs.shape[1]))


def _pack_row(parts: list[Part], row: int, outputs: np.ndarray) -> str:
    content: dict[str, Any] = {}
    for i, part in enumerate(parts):
        length = part.lengths[row]

        def lay(array: np.ndarray, length: int = length) -> np.ndarray:  # (outputs, steps, features)
            return np.moveaxis(array[:length][..., outputs], -1, 0).astype(np.float64)

        values = lay(part.values[row])
        content |= decimal(f"values{i}", values)
        content[f"steps{i}"] = values.sum(2).astype(np.float32)
        content[f"features{i}"] = values.sum(1).astype(np.float32)
        if part.errors is not None:
            errors = part.errors.of_rows(row).of(lay)
            content[f"errors{i}"] = errors.errors.astype(np.float32)
            content[f"stepErrors{i}"] = errors.of(lambda a: a.sum(2)).errors.astype(np.float32)
            content[f"featureErrors{i}"] = errors.of(lambda a: a.sum(1)).errors.astype(np.float32)
        if part.data is not None:
            data = part.data[row, :length]
            content[f"data{i}"] = (
                data.astype(np.float32) if data.dtype.kind in "biuf" else list(map(_plain, data.ravel()))
            )
        if part.step_labels is not None and part.step_labels.ndim == 2:
            content[f"labels{i}"] = part.step_labels[row, :length].tolist()
    return pack(content)


def _plain(item: Any) -> float | str | None:
    """Return a number or text that JSON can hold."""
    if isinstance(item, (bool, str)) or not isinstance(item, (int, float, np.number)):
        return None if item is None else str(item)
    return float(item) if math.isfinite(item) else None


# ---------------------------------------------------------------------- what the scripts read
def _columns(content: Content, judged: Judgement, choice: Choice) -> dict[str, Any]:
    """Return numbers of the shown rows, in float64: (rows, outputs) or (rows,)."""
    grid = np.ix_(choice.rows, choice.outputs)
    columns = {"outputs": content.outputs[grid], "total": content.total[grid], "total_abs": content.total_abs[grid]}
    for name, column in (("base", content.base), ("gap", content.gap), ("targets", judged.target_values)):
        if column is not None:
            columns[name] = column[grid]
    if judged.error is not None:
        columns["error"] = judged.error[choice.rows] * (-1 if judged.margin else 1)
    return columns


def _comparable(content: Content, judged: Judgement) -> bool:
    """Return whether outputs are scores of classes, of which the highest counts."""
    return content.flat and content.outputs.shape[1] > 1 and judged.target_values is None


def _meta(content: Content, judged: Judgement, overall: list[Importance], choice: Choice) -> dict[str, Any]:
    def shown_rows(column: np.ndarray | None) -> list[Any] | None:
        return None if column is None else [None if v != v else v for v in column[choice.rows].tolist()]  # NaN: unknown

    ranked = content.output_names.ndim == 2
    names = content.output_names
    return {
        "rows": choice.rows.tolist(),
        "ids": [content.row_ids[row] for row in choice.rows],
        "outputs": [f"rank {k + 1}" for k in choice.outputs] if ranked else names[choice.outputs].tolist(),
        "ranked": names[np.ix_(choice.rows, choice.outputs)].tolist() if ranked else None,
        "predicted": shown_rows(judged.predicted),
        "predictedLabel": "highest output" if judged.true is None else "predicted",
        "true": shown_rows(judged.true),
        "wrong": shown_rows(judged.wrong),
        "errorName": "margin" if judged.margin else "error",
        "errorMeaning": judged.meaning,
        "comparable": _comparable(content, judged),
        "explained": content.explained,
        "confusion": _confusion(judged, content.classes or np.atleast_1d(names).ravel().tolist()),
        "timeLabel": content.time_label,
        "baseKnown": content.base is not None,
        "largestPart": int(np.argmax([np.abs(summary.feature_size).sum() for summary in overall])),
        "parts": [_describe(part, summary, choice) for part, summary in zip(content.parts, overall, strict=True)],
    }


def _confusion(judged: Judgement, classes: list[str]) -> dict[str, Any] | None:
    """Count predictions of each true class over all rows, (true, predicted); classes in the model's order."""
    if judged.predicted is None or judged.true is None:
        return None
    places = {str(name): place for place, name in enumerate(classes)}
    classes_found = {*map(str, judged.true), *map(str, judged.predicted)}
    names = sorted(classes_found, key=lambda name: (places.get(name, len(places)), natural_order(name)))
    if len(names) > MOST_CLASSES:
        return None
    counts = np.zeros((len(names), len(names)), int)
    places = {name: place for place, name in enumerate(names)}
    np.add.at(counts, ([places[str(t)] for t in judged.true], [places[str(p)] for p in judged.predicted]), 1)
    return {"names": names, "counts": counts.tolist()}


def _describe(part: Part, overall: Importance, choice: Choice) -> dict[str, Any]:
    labels, text = part.step_labels, part.kind == "text"
    words = [part.words(row) for row in choice.rows]
    return {
        "name": part.name,
        "kind": part.kind,
        "features": part.feature_names,
        "steps": part.values.shape[1],
        "labels": labels.tolist() if labels is not None and labels.ndim == 1 else None,
        "lengths": part.lengths[choice.rows].tolist(),
        "varied": bool((part.lengths != part.lengths[0]).any()),
        "stepRows": overall.rows.tolist(),
        "names": overall.names,
        "counts": None if overall.counts is None else overall.counts.tolist(),
        "texts": [" ".join(row_words) for row_words in words] if text else None,
        "words": [len(row_words) for row_words in words] if text else None,
    }


# ---------------------------------------------------------------------- key facts
def _facts(content: Content, judged: Judgement) -> list[dict[str, str]]:
    """Return the cards of key facts: what was explained, how exactly, and how good the model is."""
    cards: list[dict[str, str]] = []

    def card(name: str, value: str, detail: str = "", state: str = "") -> None:
        cards.append({"name": name, "value": value, "detail": detail, "state": state})

    if content.model:
        card("Model", content.model)
    card("Examples", f"{len(content):,}", "; ".join(map(_shape, content.parts)))
    count, names = content.outputs.shape[1], content.output_names
    if content.explained or count == 1:
        of = f"one of {len(content.classes):,} outputs" if content.classes and len(content.classes) > 1 else ""
        card("Explained output", content.explained or str(names.flat[0]), of)
    else:
        first_names = ", ".join(map(str, names[:4])) + (", …" if count > 4 else "") if names.ndim == 1 else ""
        card("Outputs", f"{count:,}", first_names)
    background = dict(content.background or {})
    rows = background.pop("rows", "given" if background else "not recorded")
    rest = [f"{value}" if key == "description" else f"{key}: {value}" for key, value in background.items()]
    card("Background", plural(rows, "row") if isinstance(rows, int) else str(rows), "; ".join(rest))
    _add_gap_card(content.gap, card)
    if content.method or content.players:
        players = f"values of {content.players}" if content.players else ""
        card("Method", content.method or "not recorded", players)
    if content.reliability:
        verdict, _, grounds = content.reliability.partition(". ")
        card("Reliability", verdict, grounds)
    errors = [part.errors.errors.max() for part in content.parts if part.errors is not None]
    if errors:
        reached, detail = content.converged, ""
        if reached is not None:
            detail = f"{int(reached.sum()):,} of {plural(len(reached), 'example')} as exact as asked for"
        card("Largest standard error", number(float(max(errors)), 2), detail)
    if judged.wrong is not None:
        right = len(content) - int(judged.wrong.sum())
        card("Correct", f"{right / len(content):.1%}", f"{right:,} of {plural(len(content), 'example')}")
    elif judged.error is not None:
        card("Mean error", number(float(np.nanmean(judged.error)), 4), judged.meaning)
    if content.compute_time is not None:
        card("Time to explain", duration(content.compute_time))
    return cards


def _add_gap_card(gap: np.ndarray | None, card: Any) -> None:
    """Add the card that says whether attributions add up."""
    name, of = "Largest gap", "of the outputs’ scale: "
    if gap is None:
        card(name, "not checked", "outputs or base values are not part of this explanation")
        return
    largest = float(gap.max())
    state, verdict = (
        ("good", "attributions add up to the outputs")
        if largest <= TOLERANCE
        else ("rough", "they add up as roughly as in half precision")
        if largest <= ROUGH
        else ("bad", "attributions do not add up to the outputs")
    )
    card(name, number(largest, 2), of + verdict, state)


def _shape(part: Part) -> str:
    _, steps, features, _ = part.values.shape
    lengths = part.lengths if part.kind != "text" else [len(part.words(row)) for row in range(len(part.lengths))]
    shortest, longest = int(min(lengths)), steps if part.kind != "text" else int(max(lengths))
    spread = f"{shortest:,} to " if shortest < longest else ""
    axes = {
        "sequence": f"{spread}{plural(steps, 'step')} × {plural(features, 'feature')}",
        "image": f"{steps:,} × {features:,} pixels",
        "text": f"{spread}{plural(longest, 'word')}",
        "table": plural(features, "feature"),
    }
    return f"{part.name}: {axes[part.kind]}" if part.name else axes[part.kind]

"""Put a report together: choose what fits, pack it, and fill the page."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from ..errors import InputError
from ..explanation.core import Attributions
from .content import Content, Part, read
from .examples import Judged, judge, outputs_worth_showing, priorities
from .facts import facts
from .groups import Beside, faithfulness_section, groups_of, in_order
from .importance import Importance, importance
from .packing import decimal, pack

try:
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise ImportError("the report needs plotly: pip install 'deepshap[report]'") from error

SCRIPTS = ("data.js", "format.js", "charts.js", "overview.js", "beside.js", "example.js", "table.js", "app.js")
MOST_ROWS = 5000  # in one page; nobody looks through more, and each is an element of the page
FEW_ROWS = 50  # that should fit before outputs are left out
ROOM = 20_000  # bytes for the cards of facts, the notice and the policy
MOST_CLASSES = 30  # in a confusion matrix


Overall = Sequence[Importance | Beside]  # what there is of all rows together


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
    judged = judge(content)
    masks = groups_of(content, judged, groups)
    highest = content.outputs.argmax(1) if _comparable(content, judged) else None
    overall = [importance(part, highest) for part in content.parts]
    beside = [Beside.of(part, masks, highest, seed) for part in content.parts]
    meant = {"groups": _described(masks), "ownGroups": groups is not None}
    meant |= {"faithfulness": faithfulness_section(faithfulness)}
    scripts = [get_plotlyjs(), _application()]
    title = title or (f"{content.model}: explanation" if content.model else "Explanation")
    nothing = Choice(np.arange(0), np.arange(content.outputs.shape[1]), [])
    texts = [_json(_meta(content, judged, overall, nothing, title)), _json(meant)]
    fixed = sum(map(_size, [*scripts, _asset("report.css"), _asset("page.html"), *texts]))
    choice = _choose(content, judged, [*overall, *beside], int(max_megabytes * 1e6) - fixed - ROOM, seed)
    blobs = {f"example-{i}": packed for i, packed in enumerate(choice.packed)}
    blobs |= {f"overall-{i}": pack(each.packed(choice.outputs)) for i, each in enumerate(overall)}
    blobs |= {f"beside-{i}": pack(each.packed(choice.outputs)) for i, each in enumerate(beside)}
    blobs["rows"] = pack(_columns(content, judged, choice))
    return _fill(
        _asset("page.html"),
        {
            "title": escape(title),
            "policy": "; ".join(_policy(scripts)),
            "style": _asset("report.css"),
            "facts": facts(content, judged),
            "notice": _notice(content, judged, choice, seed),
            "meta": _json(_meta(content, judged, overall, choice, title) | meant),
            "data": "\n".join(
                f'<script type="text/plain" id="data-{key}">{blob}</script>' for key, blob in blobs.items()
            ),
            "plotly": scripts[0],
            "application": scripts[1],
        },
    ).encode()


def _described(masks: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    return [{"name": name, "count": int(mask.sum())} for name, mask in masks.items()]


# ---------------------------------------------------------------------- what fits
def _choose(content: Content, judged: Judged, overall: Overall, budget: int, seed: int) -> Choice:
    order = priorities(content, judged, seed)[:MOST_ROWS]
    count = content.outputs.shape[1]
    if count > 1:
        count = _outputs_that_fit(content, overall, order, budget)
    outputs = outputs_worth_showing(content, judged, count)
    budget -= sum(len(pack(each.packed(outputs))) for each in overall)
    names = 2 * max(_size(str(name)) for name in content.output_names.flat)  # what is predicted, what is true
    rows, packed = [], []
    for row in order:
        packed.append(_pack_row(content.parts, row, outputs))
        budget -= len(packed[-1]) + names + _size_beside(content, row, len(outputs))
        if budget < 0:
            packed.pop()
            break
        rows.append(row)
    if not rows:
        raise InputError(
            "not even one row fits into the report: raise max_megabytes, or sum over the steps or the features first, "
            "explanation.over_features() or explanation.over_time()."
        )
    sequence = np.argsort(rows)
    return Choice(np.array(rows)[sequence], outputs, [packed[i] for i in sequence])


def _size_beside(content: Content, row: int, outputs: int) -> int:
    """Bytes that a row takes beside its pictures, at most: its numbers and id in the table, and the words of texts."""
    words = [
        part.data[row, : part.lengths[row], 0]
        for part in content.parts
        if part.kind == "text" and part.data is not None
    ]
    texts = [content.row_ids[row], *(str(word) for line in words for word in line)]
    return 100 + 12 * (4 + 6 * outputs) + sum(_size(text) + 1 for text in texts)


def _outputs_that_fit(content: Content, overall: Overall, order: np.ndarray, budget: int) -> int:
    """How many outputs leave room for a few rows, from the sizes of a page with one output and with two."""
    sample = order[:: max(1, len(order) // 6)][:6]

    def size(outputs: int) -> float:
        chosen = np.arange(outputs)
        rows = [len(_pack_row(content.parts, row, chosen)) for row in sample]
        return sum(len(pack(each.packed(chosen))) for each in overall) + min(FEW_ROWS, len(order)) * float(
            np.mean(rows)
        )

    one, two = size(1), size(2)
    return int(np.clip(1 + (budget - one) // max(two - one, 1.0), 1, content.outputs.shape[1]))


def _pack_row(parts: list[Part], row: int, outputs: np.ndarray) -> str:
    content: dict[str, Any] = {}
    for i, part in enumerate(parts):
        length = part.lengths[row]
        values = np.moveaxis(part.values[row, :length][..., outputs], -1, 0).astype(
            np.float64
        )  # (outputs, steps, features)
        content |= decimal(f"values{i}", values)
        content[f"steps{i}"] = values.sum(2).astype(np.float32)
        content[f"features{i}"] = values.sum(1).astype(np.float32)
        content |= _packed_errors(part, row, outputs, i)
        if part.data is not None:
            content[f"data{i}"] = _packable(part.data[row, :length])
        if part.step_labels is not None and part.step_labels.ndim == 2:
            content[f"labels{i}"] = part.step_labels[row, :length].tolist()
    return pack(content)


def _packed_errors(part: Part, row: int, outputs: np.ndarray, i: int) -> dict[str, np.ndarray]:
    """Standard errors of an example: of its values (outputs, steps, features), and of their sums."""
    if part.errors is None:
        return {}
    errors = part.errors.of_rows(row).of(lambda array: np.moveaxis(array[: part.lengths[row]][..., outputs], -1, 0))
    sums = {"errors": errors.errors, "stepErrors": errors.of(lambda a: a.sum(2)).errors}
    sums["featureErrors"] = errors.of(lambda a: a.sum(1)).errors
    return {f"{name}{i}": array.astype(np.float32) for name, array in sums.items()}


def _packable(data: np.ndarray) -> Any:
    """Numbers as float32; anything else as a flat list of numbers and texts."""
    if data.dtype.kind in "biuf":
        return data.astype(np.float32)
    return [_plain(item) for item in data.ravel()]


def _plain(item: Any) -> float | str | None:
    if isinstance(item, (bool, str)) or not isinstance(item, (int, float, np.number)):
        return None if item is None else str(item)
    return float(item) if math.isfinite(item) else None


# ---------------------------------------------------------------------- what the scripts read
def _columns(content: Content, judged: Judged, choice: Choice) -> dict[str, Any]:
    """Numbers of the shown rows, in float64: (rows, outputs) or (rows,)."""
    grid = np.ix_(choice.rows, choice.outputs)
    columns = {"outputs": content.outputs[grid], "total": content.total[grid], "total_abs": content.total_abs[grid]}
    for name, known in (("base", content.base), ("gap", content.gap)):
        if known is not None:
            columns[name] = known[grid]
    if judged.error is not None:
        columns["error"] = judged.error[choice.rows] * (-1 if judged.margin else 1)
    if judged.each is not None:
        columns["targets"] = judged.each[grid]
    return columns


def _comparable(content: Content, judged: Judged) -> bool:
    """Whether outputs are scores of classes, of which the highest counts."""
    return content.flat and content.outputs.shape[1] > 1 and judged.each is None


def _meta(content: Content, judged: Judged, overall: list[Importance], choice: Choice, title: str) -> dict[str, Any]:
    def kept(column: np.ndarray | None) -> list[Any] | None:
        return None if column is None else [None if v != v else v for v in column[choice.rows].tolist()]  # NaN: unknown

    ranked = content.output_names.ndim == 2
    return {
        "title": title,
        "rows": choice.rows.tolist(),
        "ids": [content.row_ids[row] for row in choice.rows],
        "outputs": [f"rank {k + 1}" for k in choice.outputs]
        if ranked
        else content.output_names[choice.outputs].tolist(),
        "ranked": content.output_names[np.ix_(choice.rows, choice.outputs)].tolist() if ranked else None,
        "predicted": kept(judged.predicted),
        "predictedLabel": "highest output" if judged.true is None else "predicted",
        "true": kept(judged.true),
        "wrong": kept(judged.wrong),
        "errorName": "margin" if judged.margin else "error",
        "errorMeaning": judged.meaning,
        "comparable": _comparable(content, judged),
        "explained": content.explained,
        "confusion": _confusion(judged, content.classes or np.atleast_1d(content.output_names).ravel().tolist()),
        "timeLabel": content.time_label,
        "baseKnown": content.base is not None,
        "parts": [_describe(part, each, choice) for part, each in zip(content.parts, overall, strict=True)],
    }


def _confusion(judged: Judged, classes: list[str]) -> dict[str, Any] | None:
    """How often each true class got each prediction, over all rows: (true, predicted); classes in the model's order."""
    if judged.predicted is None or judged.true is None:
        return None
    places = {str(name): place for place, name in enumerate(classes)}
    found = {*map(str, judged.true), *map(str, judged.predicted)}
    names = sorted(found, key=lambda name: (places.get(name, len(places)), in_order(name)))
    if len(names) > MOST_CLASSES:
        return None
    counts = np.zeros((len(names), len(names)), int)
    places = {name: place for place, name in enumerate(names)}
    np.add.at(counts, ([places[str(t)] for t in judged.true], [places[str(p)] for p in judged.predicted]), 1)
    return {"names": names, "counts": counts.tolist()}


def _describe(part: Part, overall: Importance, choice: Choice) -> dict[str, Any]:
    shared = part.step_labels is not None and part.step_labels.ndim == 1
    texts = None
    if part.kind == "text":
        assert part.data is not None
        texts = [" ".join(map(str, part.data[row, : part.lengths[row], 0])) for row in choice.rows]
    return {
        "name": part.name,
        "kind": part.kind,
        "features": part.feature_names,
        "steps": part.values.shape[1],
        "labels": part.step_labels.tolist() if shared and part.step_labels is not None else None,
        "lengths": part.lengths[choice.rows].tolist(),
        "varied": bool((part.lengths != part.lengths[0]).any()),
        "stepRows": overall.rows.tolist(),
        "names": overall.names,
        "counts": None if overall.counts is None else overall.counts.tolist(),
        "texts": texts,
    }


# ---------------------------------------------------------------------- what is written into the page at once
def _notice(content: Content, judged: Judged, choice: Choice, seed: int) -> str:
    """Say what was left out; empty if nothing was."""
    lines = []
    if len(choice.rows) < len(content):
        groups = ["the worst predictions"] if judged.error is not None else []
        groups += ["the largest attributions", f"examples drawn at random (seed {seed})"]
        lines.append(
            f"<strong>{len(choice.rows):,} of {len(content):,} examples</strong> are shown, in equal parts "
            f"{escape(', '.join(groups[:-1]))} and {groups[-1]}, so that this file stays usable. "
            "Global importance and the key facts are over all of them."
        )
    if len(choice.outputs) < content.outputs.shape[1]:
        lines.append(
            f"<strong>{len(choice.outputs):,} of {content.outputs.shape[1]:,} outputs</strong> are shown: those that are "
            f"{'true or ' if judged.true is not None else ''}highest most often."
        )
    return "".join(f"<p>{line}</p>" for line in lines)


# ---------------------------------------------------------------------- the file
def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _application() -> str:
    return "(() => {\n'use strict';\n" + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();\n"


def _policy(scripts: Sequence[str]) -> list[str]:
    """A content security policy: these scripts run and no others, and nothing may be fetched."""
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


def _json(content: Any) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each ``{{name}}`` of the template, once; what is put in is not looked at again."""
    head, *rest = template.split("{{")
    pieces = [head]
    for piece in rest:
        name, _, text = piece.partition("}}")
        pieces += [values[name], text]
    return "".join(pieces)

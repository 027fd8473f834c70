"""Engines of what a target makes of a model's output, and what explanations say of their model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .engines.api import Engine, Points
from .engines.registry import room
from .errors import InputError, NoHeadError
from .names import name_of
from .request import Answer, Answering
from .tables import common_ids
from .targets import LOGITS, Wish, check_output_names, kind_of

if TYPE_CHECKING:
    from .results import Explanation

UNCLEAR = (
    "Nor does the background tell logits from probabilities: several outputs that sum to 1 in all of its rows are probabilities, "
    "one below 0 or above 1 is a logit. A background that is a function tells nothing, and with arguments of each row it must "
    "tell the same for all of them."
)


def of_change(answering: Answering, X: Any, names: Sequence[str] | None) -> tuple[Answering, np.ndarray]:
    """How a request is answered whose target changes the model's output; and that as it is, (rows, outputs)."""
    engine, request = answering.engine, answering.request
    examples, references = engine.read(X, request.additional_forward_args, answering.background)
    at_once = answering.settings.most_rows
    outputs = engine.native_outputs(examples, at_once)
    check_output_names(names, engine.output_shape)
    other = engine_of(engine, request.wish.change, examples, references, outputs, at_once)
    return replace(answering, engine=other, request=replace(request, wish=replace(request.wish, change=None))), outputs


def engine_of(
    engine: Engine, change: Any, examples: Points, references: Points | None, outputs: np.ndarray, at_once: int
) -> Engine:
    """The engine of what a target makes of the model's output, before anything is picked.

    Where no softmax or sigmoid is to be seen, what the background gives says whether outputs are logits or probabilities:
    that of a row by itself might be taken for either.

    Raises
    ------
    InputError
        If that cannot be said, or ``outputs``, those of the examples, contradict it.
    """
    heads = room(engine.framework, "heads")

    def changed(otherwise: str) -> Engine:
        return engine.reading((change, otherwise), *heads.changed(engine.model, engine.output, change, otherwise))

    if callable(change):
        return changed("refuse")
    try:
        before = changed("refuse")
        heads.look(before, examples[:1])
        return before
    except NoHeadError as error:
        if change == LOGITS:
            raise
        kind = _kind(engine, examples, references, at_once)
        if kind == "unclear":
            raise InputError(f"{error} {UNCLEAR}") from error
    strange = [row for row in range(len(outputs)) if kind == "probabilities" and kind_of(outputs[[row]]) != kind]
    if strange:
        raise InputError(
            f"row {strange[0]} of X: the model returns {outputs[strange[0]]}, which are no probabilities, and for the background "
            "it returns probabilities. Their logarithm, of which log-odds are made, has a meaning for all rows or for none: "
            "explain a function of the output."
        )
    return changed(kind)


def _kind(engine: Engine, examples: Points, references: Points | None, at_once: int) -> str:
    """What the model's outputs on the background are, as each row sees it: "unclear" too where that depends on the row."""
    if references is None:
        return "unclear"
    described = any(map(examples.form.has_rows, examples.extra))
    found = set()
    for row in range(len(examples) if described else 1):
        seen = references.described_by(examples[np.full(len(references), row)])
        found.add(engine.once(seen.key, lambda: kind_of(engine.outputs(seen, at_once, "the background"))))  # noqa: B023
    return found.pop() if len(found) == 1 else "unclear"


def annotate(explanation: Explanation, explainer: Any, answer: Answer, wish: Wish, labels: Any, targets: Any) -> None:
    """Say of an explanation which rows, model, background and output it is about, and what the model predicted."""
    from .results.assembly import describe  # which imports shap

    engine = explainer.engine
    explanation.background = {"description": "references of its own for each row"}
    if explainer._background is not None:
        explanation.background = {"rows": len(explainer._background)}
    explanation.model, explanation.explained = name_of(engine.model), wish.worded(answer.output_shape)
    if len(answer.output_shape) < 2:
        explanation.predictions, explanation.classes = answer.predictions, explainer.output_names
    if targets is not None:
        explanation.targets = targets
    if engine.layer is None and (answer.players is None or answer.players.are_cells):
        describe(explanation, labels, explainer.inverse_transform)
    else:
        explanation.row_ids = common_ids(labels)

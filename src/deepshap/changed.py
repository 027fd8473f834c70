"""Explainers of what a target makes of a model's output, and what explanations say of their model."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from .engines.registry import room
from .names import name_of
from .request import Answer, Request
from .results import Explanation
from .results.assembly import describe
from .tables import common_ids
from .targets import LOGITS, Wish, check_output_names, kind_of


def native_outputs(explainer: Any, X: Any, additional_forward_args: Any) -> np.ndarray:
    """Outputs of an explainer's model as it is, (rows, outputs)."""
    engine = explainer.engine
    with engine.session():
        examples, _ = engine.read(explainer._plain(X)[0], additional_forward_args, explainer._background)
        return engine.native_outputs(examples, explainer._settings.most_rows)


def of_changed_output(explainer: Any, change: Any, outputs: np.ndarray) -> Any:
    """The explainer of what a target makes of the model's output, before anything is picked."""
    found = "" if callable(change) else kind_of(outputs)
    otherwise = "refuse" if change == LOGITS or found == "unclear" else found
    if (change, otherwise) not in explainer._changed:
        engine, other = explainer.engine, copy.copy(explainer)
        model, output = room(engine.framework, "heads").changed(engine.model, engine.output, change, otherwise)
        other.engine = type(engine)(model, layer=engine.layer, output=output, batch_axis=explainer._batch_axis)
        other._changed = {}
        for layer, handler in explainer.custom_handlers.items():
            other.register_custom_handler(layer, handler)
        explainer._changed[change, otherwise] = other
    return explainer._changed[change, otherwise]


def answer_of_changed(explainer: Any, X: Any, request: Request, check_additivity: bool) -> tuple[Answer, Any]:
    """The answer to a request whose target changes the model's output, and labels of the rows."""
    outputs = native_outputs(explainer, X, request.additional_forward_args)
    check_output_names(explainer.output_names, explainer.engine.output_shape)
    other = of_changed_output(explainer, request.wish.change, outputs)
    plain = replace(request, wish=replace(request.wish, change=None))
    answer, labels = other._answer(X, plain, check_additivity)
    return answer._replace(predictions=outputs), labels


def annotate(explanation: Explanation, explainer: Any, answer: Answer, wish: Wish, labels: Any, targets: Any) -> None:
    """Say of an explanation which rows, model, background and output it is about, and what the model predicted."""
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

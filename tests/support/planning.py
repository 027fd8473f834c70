"""Chunks of a size that a test wants, other backgrounds, and what an engine finds out about a model."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

from deepshap import attribution


@contextmanager
def chunks_of(examples, references):
    """Let all chunks have so many examples and references."""
    original = attribution.plan_for

    def plan_for(*arguments):
        return replace(original(*arguments), examples=examples, references=references)

    with mock.patch.object(attribution, "plan_for", plan_for):
        yield


def with_background(explainer, background):
    """The same explainer against other references, with what its engine has made of the model."""
    other = copy.copy(explainer)
    other._background = explainer.engine.read_background(background)
    return other


def profile(explainer, X):
    """What the engine finds out about the model."""
    with explainer.engine.session():
        return explainer.engine.analyze(*explainer.engine.read(X, None, explainer._background))

"""Explanations to draw, and what is found in the pictures of them."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh

import deepshap

matplotlib.use("Agg")
BASE = 0.25


@pytest.fixture
def no_window(monkeypatch):
    """Fail if a plot opens a window, and close all figures."""
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("a plot called show"))
    plt.close("all")
    yield
    plt.close("all")


def explanation(rows=4, steps=7, features=3, outputs=None, lengths=None, names=None):
    """Random attributions; what lies behind the lengths is zero."""
    random = np.random.default_rng(rows + steps + features)
    data = np.cumsum(random.normal(size=(rows, steps, features)), 1)
    values = random.normal(size=(rows, steps, features, *([outputs] if outputs else [])))
    values *= np.exp(random.normal(size=features)).reshape(features, *[1] * (values.ndim - 3))
    if lengths is not None:
        present = np.arange(steps) < np.asarray(lengths)[:, None]
        values *= present.reshape(rows, steps, *[1] * (values.ndim - 2))
        data *= present[..., None]
    base = np.full((rows, outputs) if outputs else rows, BASE)
    made = deepshap.Explanation(values, base, data)
    made.feature_names = names or [f"f{i}" for i in range(features)]
    made.lengths = lengths
    return made


def explainer():
    """Of an LSTM with one output."""
    torch.manual_seed(0)
    lstm, head = torch.nn.LSTM(3, 8, batch_first=True), torch.nn.Linear(8, 1)
    return deepshap.DeepExplainer(lambda x: 5 * head(lstm(x)[0][:, -1])[:, 0], torch.randn(6, 5, 3))


def panel(ax, label):
    (found,) = [child for child in ax.child_axes if child.get_label() == label]
    return found


def image(ax):
    """What a map shows (features, columns); NaN where it is empty."""
    meshes = [c for c in ax.collections if isinstance(c, QuadMesh)]
    return np.ma.filled(meshes[0].get_array(), np.nan)


def row_names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def bars(ax):
    """Left and width of horizontal bars by their place from the top, in the order in which they were drawn."""
    found = {}
    for bar in ax.patches:
        if hasattr(bar, "get_width"):
            found.setdefault(round(bar.get_y() + bar.get_height() / 2), []).append((bar.get_x(), bar.get_width()))
    return [found[place] for place in sorted(found)]


def swarm(ax):
    """Names of a beeswarm from the top, and of each the sorted values of its points."""
    points = np.concatenate([np.ma.getdata(c.get_offsets()) for c in ax.collections if len(c.get_offsets())])
    names = row_names(ax)
    return {name: np.sort(points[points[:, 1].round() == at, 0]) for at, name in reversed(list(enumerate(names)))}


def numbers(texts):
    return [float(text.get_text().replace("\N{MINUS SIGN}", "-")) for text in texts]


def words(tokens, values):
    made = deepshap.Explanation(np.array([values, values]), np.array([BASE, BASE]), np.array([tokens, tokens]))
    return made[0]

"""Tiny models and data sets whose attributions are cheap, and one that fails on some rows."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch
from cli_models import Ragged
from torch import nn

import deepshap

STEPS = 6


class Table(nn.Module):
    """Four columns in, two numbers out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))

    def forward(self, x):
        return self.net(x)


class Picky(Table):
    """Raises on a row whose first value is 13, and has no finite output where it is 17."""

    def forward(self, x):
        if (x[:, 0] == 13).any():
            raise ValueError("thirteen")
        return super().forward(x) / torch.where(x[:, :1].detach() == 17, 0.0, 1.0)


class Slow(Table):
    """Takes its time, so that who explains can be caught at work."""

    def forward(self, x):
        time.sleep(0.05)
        return super().forward(x)


class Blocker:
    """An actor that takes the cores of a node."""

    def here(self):
        return True


def table_explainer(model=None, seed=1, references=5):
    """An explainer of rows of four columns."""
    background = np.random.default_rng(seed).normal(size=(references, 4)).astype(np.float32)
    return deepshap.DeepExplainer(model or Table(), background, progress=False)


def rows(count, seed=2):
    """Rows of four columns."""
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def ragged_explainer():
    """An explainer of a model that reads as many steps as a row has."""
    background = np.random.default_rng(3).normal(size=(4, STEPS, 2)).astype(np.float32)
    return deepshap.DeepExplainer(Ragged(), background, progress=False)


def long_table(count, seed=4):
    """A long table of that many ids, of 1 to STEPS lines each, the first of all of them."""
    random = np.random.default_rng(seed)
    lengths = np.concatenate([[STEPS], random.integers(1, STEPS + 1, count - 1)])
    ids = np.repeat([f"id-{i:05d}" for i in range(count)], lengths)
    days = np.concatenate([pd.date_range("2024-01-01", periods=n) for n in lengths])
    values = random.normal(size=(len(ids), 2)).astype(np.float32)
    return pd.DataFrame({"who": ids, "day": days, "pulse": values[:, 0], "heat": values[:, 1]})

"""Tensors in nested arguments: lists, tuples, named tuples, dicts and slices, always in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What most arguments of a call are: they are told by their class, which takes less time than to look for what they are not.
LEAVES = {int, float, bool, str, complex, type(None), type(...), torch.dtype, torch.device}
NUMBERS = (int, float, complex, str, np.generic)


def tensors(tree: Any) -> list[Tensor]:
    """All tensors."""
    return _collected(tree, Tensor)


def numbers(tree: Any) -> list[Any]:
    """All numbers, flags and words."""
    return _collected(tree, NUMBERS)


def _collected(tree: Any, kinds: Any) -> list[Any]:
    found: list[Any] = []
    _collect(tree, kinds, found)
    return found


def _collect(tree: Any, kinds: Any, found: list[Any]) -> None:
    if isinstance(tree, kinds):
        found.append(tree)
    elif type(tree) in LEAVES:
        return
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            _collect(item, kinds, found)
    elif isinstance(tree, dict):
        for item in tree.values():
            _collect(item, kinds, found)
    elif isinstance(tree, slice):
        _collect((tree.start, tree.stop, tree.step), kinds, found)


def replace(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """Copy the tree with every tensor changed."""
    if type(tree) in LEAVES:
        return tree
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[replace(item, change) for item in tree])
    if isinstance(tree, (tuple, list)):
        return type(tree)([replace(item, change) for item in tree])
    if isinstance(tree, dict):
        return {key: replace(item, change) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*[replace(item, change) for item in (tree.start, tree.stop, tree.step)])
    return tree


def detached(tree: Any) -> Any:
    """Copy the tree with every tensor off the graph."""
    return replace(tree, lambda t: t.detach())

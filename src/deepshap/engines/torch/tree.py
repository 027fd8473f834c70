"""Tensors in nested arguments: lists, tuples, named tuples, dicts and slices, always in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Most arguments of a call have one of these classes, which are compared first because that is fastest.
WORDS = {int, float, bool, str, complex}
NOTHING = {type(None), type(...), torch.dtype, torch.device}
LEAVES = WORDS | NOTHING
TENSORS = {Tensor, torch.nn.Parameter}
EMPTY = {dict, tuple, list}
NUMBERS = (int, float, complex, str, np.generic)


def tensors(tree: Any) -> list[Tensor]:
    """Return all tensors."""
    return [tree] if isinstance(tree, Tensor) else split_tensors(tree)[0]


def split_tensors(tree: Any) -> tuple[list[Tensor], list[Any]]:
    """Return all tensors, and all numbers, flags and strings."""
    tensors_and_words: tuple[list[Tensor], list[Any]] = [], []
    _split(tree if type(tree) is tuple else (tree,), *tensors_and_words)
    return tensors_and_words


def _split(items: Iterable[Any], tensors: list[Tensor], words: list[Any]) -> None:
    for item in items:
        kind = type(item)
        if kind in TENSORS:
            tensors.append(item)
        elif kind in WORDS:
            words.append(item)
        elif kind in NOTHING or (kind in EMPTY and not item):
            continue
        elif kind is tuple or kind is list:
            _split(item, tensors, words)
        elif kind is dict:
            _split(item.values(), tensors, words)
        elif isinstance(item, Tensor):
            tensors.append(item)
        elif isinstance(item, (tuple, list)):
            _split(item, tensors, words)
        elif isinstance(item, dict):
            _split(item.values(), tensors, words)
        elif isinstance(item, slice):
            _split((item.start, item.stop, item.step), tensors, words)
        elif isinstance(item, NUMBERS):
            words.append(item)


def replace(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """Copy the tree with every tensor changed."""
    kind = type(tree)
    if kind in LEAVES:
        return tree
    if kind in EMPTY and not tree:
        return kind()  # a new one, because its owner may fill the old one later
    if kind in TENSORS or isinstance(tree, Tensor):
        return change(tree)
    if kind is dict:
        return {key: item if type(item) in LEAVES else replace(item, change) for key, item in tree.items()}
    if kind is tuple:
        return tuple(
            [change(v) if type(v) in TENSORS else v if type(v) in LEAVES else replace(v, change) for v in tree]
        )
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
    return replace(tree, Tensor.detach)


def is_continuous(dtype: torch.dtype) -> bool:
    """Return whether autograd follows values of this dtype."""
    return dtype.is_floating_point or dtype.is_complex

"""Tensors in nested arguments: lists, tuples, named tuples, dicts and slices, always in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor


def tensors(tree: Any) -> Iterator[Tensor]:
    """Yield all tensors."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from tensors(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from tensors(item)
    elif isinstance(tree, slice):
        yield from tensors((tree.start, tree.stop, tree.step))


def replace(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """Copy the tree with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(replace(item, change) for item in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(replace(item, change) for item in tree)
    if isinstance(tree, dict):
        return {key: replace(item, change) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*(replace(item, change) for item in (tree.start, tree.stop, tree.step)))
    return tree


def detached(tree: Any) -> Any:
    """Copy the tree with every tensor off the graph."""
    return replace(tree, lambda t: t.detach())

"""Products in Einstein's notation as matrix products: TensorFlow's own operation takes three to six times as long."""

from __future__ import annotations

from math import prod
from typing import Any

import tensorflow as tf


def product(left: Any, right: Any, equation: str) -> Any:
    """The product of two tensors by an equation such as ``"abc,acd->abd"``.

    No index is repeated in a tensor, and each is in two tensors at least: in both factors and the product (``batch``), in both
    factors alone (``summed``), or in one of them and the product.
    """
    a, b, made = equation.replace("->", ",").split(",")
    batch, summed, rows, columns = _roles(a, b, made)
    sizes = {k: size for names, t in ((a, left), (b, right)) for k, size in zip(names, _sizes(t), strict=True)}
    first, turned = _as_matrix(left, a, batch, rows, summed, sizes)
    second, other_turned = _as_matrix(right, b, batch, summed, columns, sizes)
    if made.startswith(batch + columns) and made != batch + rows + columns:
        found = tf.matmul(second, first, transpose_a=not other_turned, transpose_b=not turned)
        rows, columns = columns, rows
    else:
        found = tf.matmul(first, second, transpose_a=turned, transpose_b=other_turned)
    order = batch + rows + columns
    return _ordered(tf.reshape(found, [sizes[k] for k in order]), order, made)


def as_matrices(equation: str) -> str:
    """The order of axes in which a product takes its second factor without work."""
    a, b, made = equation.replace("->", ",").split(",")
    batch, summed, _, columns = _roles(a, b, made)
    return b if b == batch + columns + summed else batch + summed + columns


def _roles(a: str, b: str, made: str) -> tuple[str, str, str, str]:
    """Indices of all three, of the factors alone, of the first and of the second factor and the product."""
    batch, summed = ("".join(k for k in a if k in b and (k in made) == kept) for kept in (True, False))
    rows, columns = ("".join(k for k in made if k in own and k not in batch) for own in (a, b))
    return batch, summed, rows, columns


def _sizes(tensor: Any) -> list[Any]:
    """Sizes of axes, numbers where they are known."""
    return [tf.shape(tensor)[k] if size is None else size for k, size in enumerate(tensor.shape)]


def _as_matrix(tensor: Any, names: str, batch: str, rows: str, columns: str, sizes: dict[str, Any]) -> tuple[Any, bool]:
    """A tensor as matrices, and whether they lie there transposed, which needs no work."""
    turned = names == batch + columns + rows
    if turned:
        rows, columns = columns, rows
    tensor = _ordered(tensor, names, batch + rows + columns)
    shape = [*(sizes[k] for k in batch), prod(sizes[k] for k in rows), prod(sizes[k] for k in columns)]
    return tf.reshape(tensor, shape), turned


def _ordered(tensor: Any, names: str, wanted: str) -> Any:
    """A tensor with its axes in another order."""
    return tensor if names == wanted else tf.transpose(tensor, [names.index(k) for k in wanted])

"""Return what a Keras model computes before its last softmax or sigmoid, and log-odds."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

from ...errors import InputError, NoHeadError
from .._compat import operation_of
from ..interface import Engine, Points
from .inputs import take_output

# Layers that do nothing where the shapes before and after are equal.
UNCHANGING = (keras.layers.Dropout, keras.layers.Flatten, keras.layers.Reshape)
HEADS = (keras.activations.softmax, keras.activations.sigmoid)
REFUSED = (
    "the logits are out of reach: the model is no functional or sequential Keras model that ends in a softmax or sigmoid. "
    "Explain a function of its output, or a model without the last function."
)


def before_head(model: Any) -> tuple[Any, str] | None:
    """Return the function that a model computes before its head, and the head's name; None if no head is visible."""
    graph = type(model) is keras.Sequential or type(model).__name__ == "Functional"  # no code of its own
    if not graph or len(model.outputs) != 1:
        return None
    layer = operation_of(model.outputs[0])
    while type(layer) in UNCHANGING and layer.input.shape == layer.output.shape:
        layer = operation_of(layer.input)
    head = _head(layer)
    if head is None:
        return None
    end, before = _KNOWN.get(model, (None, None))
    if end is not model.outputs[0]:
        dense = type(layer) is keras.layers.Dense
        before = keras.Model(model.inputs, _Linear(layer)(layer.input) if dense else layer.input)
        _KNOWN[model] = model.outputs[0], before
    return before, head


# By models, the tensor where each ended, and the model up to its head: layers take note of every model they become part of.
_KNOWN: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()


class _Linear(keras.layers.Layer):
    """A dense layer without its activation."""

    def __init__(self, dense: Any) -> None:
        super().__init__(dtype=dense.dtype_policy)
        self.dense = dense

    def call(self, x: Any) -> Any:
        """Apply the layer's weights."""
        product = keras.ops.matmul(x, self.dense.kernel)
        return product if self.dense.bias is None else keras.ops.add(product, self.dense.bias)


def _head(layer: Any) -> str | None:
    if isinstance(layer, keras.layers.Softmax):
        return "softmax" if layer.axis == -1 else None
    if type(layer) not in (keras.layers.Dense, keras.layers.Activation):
        return None
    return next((activation.__name__ for activation in HEADS if layer.activation is activation), None)


def against_others(logits: Any) -> Any:
    """Return log-odds of each class against all others together: ``logit_k - log(sum of exp(logit_j) over j != k)``."""
    count = logits.shape[-1]
    others = [[j for j in range(count) if j != k] for k in range(count)]
    return logits - tf.reduce_logsumexp(tf.gather(logits, others, axis=-1), -1)


def changed(model: Any, output: Any, change: Any, otherwise: str) -> tuple[Any, Any]:
    """Return a model and ``output`` whose explained tensor is a transform of the given model's."""
    if callable(change):
        return model, lambda result: change(take_output(result, output))
    split = before_head(model) if output is None else None
    if split is None and otherwise == "refuse":
        raise NoHeadError(REFUSED)
    inner, head = split or (model, "")

    def read(result: Any) -> Any:
        logits = take_output(result, None if head else output)
        logits = tf.math.log(logits) if not head and otherwise == "probabilities" else logits
        several = logits.shape.rank > 1 and logits.shape[-1] > 1 and head != "sigmoid"
        return against_others(logits) if change == "log-odds" and several else logits

    return inner, read


def look(before: Engine, points: Points) -> None:
    """Raise an error if a handler treats the head together with the layer before it."""
    last = operation_of(before.model.outputs[0])
    if isinstance(last, _Linear) and last.dense in before.operations:
        raise InputError(
            f"the layer {last.dense.name!r} has a handler, which treats its {last.dense.activation.__name__} too: what that gets "
            "cannot be explained by it. Make the activation a layer of its own, or unregister the handler for this target."
        )

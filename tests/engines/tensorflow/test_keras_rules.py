"""Positions chosen by value in TensorFlow: held to the oracle of ``positions.py``, as PyTorch's engine is."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import Input, Model, ops
from keras import layers as L
from positions import ROWS, SCORES, SIZE, TIED, VALUES, WEIGHTS, averaged
from tiers import mostly_wide

import deepshap

TABLE = tf.constant(WEIGHTS)


def explained(model, scores=SCORES) -> list[np.ndarray]:
    """Values of both inputs, summed to be what the outputs differ by."""
    x, r = ([v[rows] for v in (VALUES, scores)] for rows in (slice(ROWS), slice(ROWS, None)))
    found = deepshap.DeepExplainer(model, r, progress=False).shap_values(x)
    total = sum(f.reshape(ROWS, -1, f.shape[-1]).sum(1) for f in found)
    y, y_r = (np.asarray(model(*map(tf.constant, side))) for side in (x, r))
    assert_close(total, (y - y_r.mean(0)).reshape(ROWS, -1))
    return found


def at(v, places):
    """Of each row the values at places."""
    return tf.gather(v, places, batch_dims=1)


def of_rows(places):
    """Places with the rows that they are of, as coordinates."""
    rows = tf.repeat(tf.range(tf.shape(places)[0])[:, None], tf.shape(places)[1], 1)
    return tf.stack([rows, tf.cast(places, tf.int32)], -1)


TAKEN = {
    "gather of argmax": (0, lambda v, s: at(v, tf.argmax(s, 1)[:, None])),
    "gather of argmin": (0, lambda v, s: at(v, tf.argmin(-s, 1)[:, None])),
    "argmax over the first axis of a row": (0, lambda v, s: at(v, tf.argmax(s[:, :, None], 1))),
    "gather of argsort": (2, lambda v, s: at(v, tf.argsort(s, direction="DESCENDING"))[:, 2:3]),
    "top_k": (1, lambda v, s: at(v, tf.math.top_k(s, 3).indices)[:, 1:2]),
    "gather_nd of top_k": (1, lambda v, s: tf.gather_nd(v, of_rows(tf.math.top_k(s, 3).indices))[:, 1:2]),
    "one-hot of top_k": (
        1,
        lambda v, s: tf.reduce_sum(tf.one_hot(tf.math.top_k(s, 3).indices, SIZE, dtype=v.dtype)[:, 1] * v, 1, True),
    ),
    "keras.ops": (SIZE - 2, lambda v, s: ops.take_along_axis(v, ops.argsort(s, axis=1)[:, 1:2], axis=1)),
}


@pytest.mark.parametrize(("rank", "model"), TAKEN.values(), ids=TAKEN.keys())
def test_a_value_at_a_chosen_position(rank, model):
    for found, wanted in zip(explained(model), averaged(rank), strict=True):
        assert_close(found[..., 0], wanted)


def test_scattering_to_positions_is_the_transpose_of_taking():
    """<w, scatter(v, p)> = <w[p], v>: with fixed weights the values are explained alike in both forms."""

    def scattered(v, s):
        put = tf.scatter_nd(of_rows(tf.argsort(s)), v, tf.shape(v))
        return tf.reduce_sum(put * TABLE[0], 1, True)

    def taken(v, s):
        return tf.reduce_sum(tf.gather(TABLE[0], tf.argsort(s)) * v, 1, True)

    for a, b in zip(explained(scattered), explained(taken), strict=True):
        assert_close(a, b)


def experts(v, s):
    """Two of five experts for each row, mixed by the softmax of their scores: weights looked up, batched products."""
    weights, chosen = tf.math.top_k(tf.nn.softmax(s), 2)
    hidden = tf.gather(tf.tanh(TABLE[:, :, None] * TABLE), chosen) @ v[:, None, :, None]
    return tf.reduce_sum(tf.nn.relu(hidden[..., 0]) * weights[..., None], 1)


def all_experts(v, s):
    """The same, with every expert computed and the others' weights 0."""
    weights, chosen = tf.math.top_k(tf.nn.softmax(s), 2)
    routing = tf.reduce_sum(tf.one_hot(chosen, SIZE, dtype=v.dtype) * weights[..., None], 1)
    hidden = tf.nn.relu(tf.einsum("eij,nj->nei", tf.tanh(TABLE[:, :, None] * TABLE), v))
    return tf.einsum("nei,ne->ni", hidden, routing)


FORMS = {
    "experts": experts,
    "all experts": all_experts,
    "a table of rows": lambda v, s: tf.gather(TABLE, tf.argmax(s, 1)) * v,
    "two axes": lambda v, s: tf.gather_nd(TABLE, tf.stack([tf.argmax(v, 1), tf.argmax(s, 1)], -1))[:, None] + v,
    "rows of all": lambda v, s: tf.gather(tf.reshape(v, [-1]), of_rows(tf.argsort(s))[..., 0] * SIZE + tf.argsort(s)),
    "a mask of the best": lambda v, s: tf.where(
        tf.reduce_any(tf.one_hot(tf.math.top_k(s, 2).indices, SIZE, True, False, dtype=tf.bool), 1), tf.zeros_like(v), v
    ),
    "overwritten": lambda v, s: tf.tensor_scatter_nd_update(
        tf.sin(v), of_rows(tf.math.top_k(s, 2).indices), v[:, :2] * 3
    ),
    "added": lambda v, s: tf.tensor_scatter_nd_add(v, of_rows(tf.math.top_k(s, 2).indices), tf.sin(v[:, :2])),
    "subtracted": lambda v, s: tf.tensor_scatter_nd_sub(v, of_rows(tf.math.top_k(s, 2).indices), tf.sin(v[:, :2])),
    "segments": lambda v, s: tf.reshape(
        tf.math.unsorted_segment_sum(
            tf.reshape(v, [-1]),
            tf.reshape(of_rows(s)[..., 0] * SIZE + tf.argsort(s) // 2, [-1]),
            tf.size(v),
        ),
        tf.shape(v),
    ),
    "computed positions": lambda v, s: at(v, (tf.argsort(s) * 2 + 1) % SIZE),
    "ranks": lambda v, s: tf.cast(tf.argsort(tf.argsort(s)), v.dtype) * v,
    "integers looked up": lambda v, s: tf.cast(tf.gather(tf.range(0, 50, 10), tf.argmax(s, 1)), v.dtype)[:, None] * v,
    "compared": lambda v, s: sum(
        tf.cast(tf.argmax(s, 1)[:, None] == k, v.dtype) * tf.sin((k + 1.0) * v) for k in range(SIZE)
    ),
    "scores with infinities": lambda v, s: at(
        v, tf.argsort(tf.where(tf.range(SIZE) > 3, tf.constant(-np.inf, s.dtype), s))
    ),
    "one after the other": lambda v, s: tf.while_loop(
        lambda k, *_: k < 3,
        lambda k, left, found: (
            k + 1,
            tf.where(tf.range(SIZE, dtype=tf.int64) == tf.argmax(left, 1)[:, None], tf.constant(-9.0, v.dtype), left),
            found + tf.cast(k + 1, v.dtype) * at(v, tf.argmax(left, 1)[:, None]),
        ),
        (0, s, v[:, :1]),
    )[2],
}


@pytest.mark.parametrize(
    "name", mostly_wide(FORMS, {"experts", "overwritten", "segments", "ranks", "one after the other"})
)
def test_every_form_adds_up(name):
    assert np.abs(explained(FORMS[name])[1]).max() > 0


def test_experts_computed_or_masked_are_explained_alike():
    """Where one expert is chosen: routing by a mask is the product with it, and the lookup of its weights its average."""
    for form in (experts, all_experts):
        found = explained(form, np.where(np.arange(SIZE) == 2, 50.0, SCORES))
        assert_close(
            found[0], explained(lambda v, s: tf.nn.relu(tf.linalg.matvec(tf.tanh(TABLE[2][:, None] * TABLE), v)))[0]
        )


def test_positions_of_the_greatest_of_ties():
    explained(lambda v, s: at(v, tf.argmax(s, 1)[:, None]), TIED)


def test_a_layer_of_experts_in_float32():
    """Weights of experts chosen in a Keras model, in the precision that models have."""
    tokens = Input((4, 3))
    weights, chosen = ops.top_k(L.Dense(SIZE, activation="softmax")(tokens), 2)
    routing = ops.sum(ops.one_hot(chosen, SIZE) * weights[..., None], 2)
    hidden = ops.reshape(L.Dense(SIZE * 3, activation="silu")(tokens), (-1, 4, SIZE, 3))
    model = Model(tokens, L.Dense(2)(L.Flatten()(ops.einsum("btei,bte->bti", hidden, routing))))
    rows = np.random.default_rng(0).normal(size=(7, 4, 3)).astype(np.float32)
    found = deepshap.DeepExplainer(model, rows[3:], progress=False)(rows[:3])
    np.testing.assert_allclose(found.values.sum((1, 2)), model(rows[:3]) - np.mean(model(rows[3:]), 0), atol=1e-5)


def test_they_can_be_refused():
    deepshap.register_rule("positions", "same")
    try:
        for model in (TAKEN["gather of argmax"][1], TAKEN["top_k"][1], FORMS["compared"]):
            with pytest.raises(deepshap.ControlFlowError, match="positions from"):
                explained(model)
        explained(lambda v, s: at(v, tf.argsort(s + 100 * tf.range(SIZE, dtype=s.dtype))))
    finally:
        deepshap.unregister_rule("positions")
    explained(TAKEN["top_k"][1])


def test_nothing_else_can_be_registered_for_them():
    with pytest.raises(deepshap.InputError, match='the only rule for "positions"'):
        deepshap.register_rule("positions", "linear")
    with pytest.raises(deepshap.InputError, match="no rule is registered for positions"):
        deepshap.unregister_rule("positions")


def test_writing_twice_to_one_position_is_an_error():
    places = lambda s: of_rows(tf.argsort(s) // 2)  # noqa: E731
    with pytest.raises(deepshap.DeepShapError):
        explained(lambda v, s: tf.tensor_scatter_nd_update(tf.zeros_like(v), places(s), v))

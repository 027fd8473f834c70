"""Keras: values that reach a model unseen are refused, and what it writes to is left as it was."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import deepshap

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
X[:, 0] = 1
ZEROS = np.zeros((1, 4), "float32")  # against which sums would match whatever is a constant by mistake


def explained(model, background=ZEROS):
    return deepshap.DeepExplainer(model, background, progress=False).shap_values(X)


# ---------------------------------------------------------------------- numbers of entries
def positive(row):
    return tf.where(row > 0)


SIZES = {
    "shape": lambda row: tf.shape(positive(row))[0],
    "size": lambda row: tf.size(positive(row)),
    "ones": lambda row: tf.reduce_sum(tf.ones_like(positive(row))),
    "masked": lambda row: tf.shape(tf.boolean_mask(row, row > 0))[0],
    "range": lambda row: tf.reduce_sum(1 + tf.range(tf.size(positive(row)))),
    "unique": lambda row: tf.size(tf.unique(tf.cast(row > 0, tf.int32)).y),
    "sparse": lambda row: tf.shape(tf.sparse.from_dense(tf.nn.relu(row)).values)[0],
    "gathered": lambda row: tf.shape(tf.gather(row, positive(row)[:, 0]))[0],
    "ragged": lambda row: tf.size(tf.RaggedTensor.from_tensor(tf.nn.relu(row)[None], padding=0.0).flat_values),
    "identical": lambda row: tf.size(tf.identity(tf.cast(positive(row), tf.int32)[:, :1])),
}


def times_a_number(number):
    def model(x):
        return tf.map_fn(lambda row: tf.reduce_sum(row, keepdims=True) * tf.cast(number(row), tf.float32), x)

    return model


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_depend_on_values_are_refused(name):
    with pytest.raises(deepshap.ControlFlowError, match=r"number of entries from (Where|Unique)"):
        explained(times_a_number(SIZES[name]))


def test_sizes_that_are_the_same_everywhere_are_numbers():
    model = times_a_number(lambda row: tf.size(tf.where(row > -50)) + tf.size(tf.unique(tf.cast(row > 50, tf.int32)).y))
    np.testing.assert_allclose(explained(model)[..., 0], 5 * X, rtol=1e-5)


def test_masks_that_choose_other_places_are_refused():
    with pytest.raises(deepshap.ControlFlowError, match=r"positions from .* in 'boolean_mask' differ.*tf.where"):
        explained(lambda x: tf.boolean_mask(x, tf.equal(x, tf.reduce_max(x, 1, keepdims=True)))[:, None], X[::-1])


def test_counts_of_elements_are_explained():
    values = explained(times_a_number(lambda row: tf.math.count_nonzero(row > 0)))
    np.testing.assert_allclose(values.sum(1)[:, 0], X.sum(1) * (X > 0).sum(1), rtol=1e-4)


# ---------------------------------------------------------------------- values that go through resources
class Through(keras.layers.Layer):
    """Writes what it gets to a variable, and multiplies with what it reads there."""

    def __init__(self, way):
        super().__init__()
        self.memory = tf.Variable(tf.ones([4]), trainable=False)
        self.way = way

    def call(self, x):
        with tf.control_dependencies([self.way(self.memory, x)]):
            return x * self.memory.read_value()


WAYS = {
    "scatter": lambda memory, x: memory.scatter_update(tf.IndexedSlices(x[0, :1], [0])),
    "scatter in n dimensions": lambda memory, x: memory.scatter_nd_update([[0]], x[0, :1]),
    "slice": lambda memory, x: memory[:2].assign(x[0, :2]),
    "added slice": lambda memory, x: memory.scatter_add(tf.IndexedSlices(x[0, :1], [0])),
}


@pytest.mark.parametrize("way", WAYS)
def test_values_written_to_parts_of_variables_are_refused(way):
    layer = Through(WAYS[way])
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.memory.assign(tf.ones([4]))
    with pytest.raises(deepshap.DeepShapError, match="Resource"):
        explained(model)
    assert (layer.memory.numpy() == 1).all()


def test_values_through_tables_are_refused():
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)

    def model(x):
        with tf.control_dependencies([table.insert(tf.constant([1], tf.int64), x[0, :1])]):
            return x * table.lookup(tf.constant([1], tf.int64))

    with pytest.raises(deepshap.DeepShapError, match="LookupTableInsert"):
        explained(model)


def test_rows_of_a_variable_that_was_written_to_are_refused():
    memory = tf.Variable(tf.ones([2, 4]), trainable=False)

    def model(x):
        with tf.control_dependencies([memory.assign(tf.concat([x[:1], x[:1]], 0))]):
            return x * memory.sparse_read([0])

    with pytest.raises(deepshap.UnsupportedOperationError, match="ResourceGather"):
        explained(model)
    assert (memory.numpy() == 1).all()


@pytest.mark.parametrize("way", ["function", "loop", "branch"])
def test_values_written_where_no_output_comes_from_are_refused_or_followed(way):
    memory = tf.Variable(tf.ones([4]), trainable=False)

    @tf.function
    def note(row):
        memory.assign(row)

    def model(x):
        if way == "function":
            note(x[0])
        elif way == "loop":
            tf.while_loop(lambda k: k < 1, lambda k: [(note(x[0]), k + 1)[1]], [tf.constant(0)])
        else:
            tf.cond(tf.shape(x)[0] > 0, lambda: (note(x[0]), 1)[1], lambda: 1)
        return x * memory

    with pytest.raises(deepshap.DeepShapError):
        explained(tf.function(model))
    assert (memory.numpy() == 1).all()

"""Branches, loops and the lists that loops write to: values, and decisions that are refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import deepshap
from deepshap.engines.tensorflow import control_flow

STEPS, SIZE = 4, 3
X = np.random.default_rng(1).normal(size=(2, STEPS, SIZE))
R = np.random.default_rng(2).normal(size=(3, STEPS, SIZE))
WEIGHTS = tf.constant(np.random.default_rng(3).normal(size=(STEPS, SIZE, 1)))

PLACES = {  # where each turn writes, from its number and a variable that grows; and whether TensorFlow's graph shows that once
    "the turn's": (lambda turn, other: turn, True),
    "that of a variable that grows": (lambda turn, other: other, True),
    "one place": (lambda turn, other: 0, False),
    "one for two turns": (lambda turn, other: turn // 2, False),
    "from the end": (lambda turn, other: STEPS - 1 - turn, False),
}


def looped(place, begun=False, reads=False, still=False):
    def model(x):
        found = tf.TensorArray(x.dtype, STEPS, element_shape=(None, SIZE), clear_after_read=False)
        if begun:
            found = found.unstack(tf.transpose(x, [1, 0, 2]))

        def turn_of(turn, other, state, found):
            state = tf.tanh(state + x[:, turn])
            found = found.write(place(turn, other), state)
            if reads:
                state = state * found.read(turn)
            return turn + 1, other + (0 if still else 1), state, found

        zero = tf.zeros_like(x[:, 0])
        loop = tf.while_loop(lambda turn, *_: turn < STEPS, turn_of, (0, 0, zero, found))
        return sum(loop[3].read(k) @ WEIGHTS[k] for k in range(STEPS))

    return model


def unrolled(place, begun=False, reads=False, still=False):
    """The same without a list."""

    def model(x):
        state = tf.zeros_like(x[:, 0])
        found = [x[:, k] if begun else state for k in range(STEPS)]
        for turn in range(STEPS):
            state = tf.tanh(state + x[:, turn])
            found[place(turn, 0 if still else turn)] = state
            if reads:
                state = state * found[turn]
        return sum(found[k] @ WEIGHTS[k] for k in range(STEPS))

    return model


@pytest.fixture
def once(monkeypatch):
    """What lists that are written once hand back."""
    found, original = [], control_flow._set_item_once
    monkeypatch.setattr(control_flow, "_set_item_once", lambda *a: (found.append(a), original(*a))[1])
    return found


def assert_as_unrolled(place, **options):
    values = [deepshap.DeepExplainer(kind(place, **options), R).shap_values(X) for kind in (looped, unrolled)]
    np.testing.assert_allclose(*values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PLACES)
def test_a_place_hands_back_what_reached_it_last(name, once):
    place, is_once = PLACES[name]
    assert_as_unrolled(place)
    assert bool(once) == is_once


@pytest.mark.parametrize("option", ["begun", "reads"])
def test_lists_that_others_touch_are_written_over(option, once):
    """Those that hold something before the loop, or that the loop reads."""
    assert_as_unrolled(PLACES["the turn's"][0], **{option: True})
    assert not once


def test_a_function_that_is_called_twice_writes_over_the_first_list():
    """Both calls share the operation that writes."""

    @tf.function
    def fill(found, x):
        def turn_of(turn, found):
            return turn + 1, tf.raw_ops.TensorListSetItem(input_handle=found, index=turn, item=x[:, turn])

        return tf.while_loop(lambda turn, _: turn < STEPS, turn_of, (tf.constant(0), found))[1]

    def model(x, begun):
        found = tf.raw_ops.TensorListReserve(element_shape=[-1, SIZE], num_elements=STEPS, element_dtype=x.dtype)
        for values in (tf.tanh(x), x**2) if begun else (x**2,):
            found = fill(found, values)
        steps = tf.raw_ops.TensorListStack(input_handle=found, element_shape=[-1, SIZE], element_dtype=x.dtype)
        return tf.einsum("tbi,tio->bo", steps, WEIGHTS)

    values = [
        deepshap.DeepExplainer(lambda x, begun=begun: model(x, begun), R).shap_values(X) for begun in (True, False)
    ]
    np.testing.assert_allclose(*values, rtol=0, atol=1e-12)


def test_a_variable_that_stands_still_is_no_other_place(once):
    assert_as_unrolled(PLACES["that of a variable that grows"][0], still=True)
    assert not once


def kept_at(place, written=lambda state: state, turns=STEPS, begun=None, lists_of=1):
    """The last state in a list, and the state itself; as an expression of turns without a list too."""

    def model(x, listed):
        limit = tf.constant(turns) + tf.zeros([], tf.int32)

        def turn_of(turn, state, *found):
            state = tf.tanh(state + x[:, turn])
            return turn + 1, state, *(each.write(place, written(state)) for each in found)

        empty = tf.TensorArray(x.dtype, 2, element_shape=(None, SIZE), clear_after_read=False)
        if begun is not None:
            empty = empty.unstack(tf.transpose(begun(x)[:, :2], [1, 0, 2]))
        begin = tf.constant(0), x[:, 0] ** 2, *[empty] * (lists_of if listed else 0)
        _, state, *found = tf.while_loop(lambda turn, *_: turn < limit, turn_of, begin)
        if listed:
            items = [each.read(place) for each in found]
        else:
            items = [begun(x)[:, place] if begun and not turns else written(state)] * lists_of
        return sum(item @ WEIGHTS[k] for k, item in enumerate([state, *items]))

    return model


COPIES = {  # whether a variable takes what reaches the list
    "its first place": ({"place": 0}, True),
    "another place": ({"place": 1}, True),
    "two lists": ({"place": 0, "lists_of": 2}, True),
    "no turn": ({"place": 0, "turns": 0, "begun": tf.ones_like}, True),
    "a single turn": ({"place": 0, "turns": 1}, True),
    "something else": ({"place": 0, "written": lambda state: 2 * state}, False),
    "a list that held something": ({"place": 0, "begun": tf.tanh}, False),
    "a list that held something, and no turn": ({"place": 0, "begun": tf.tanh, "turns": 0}, False),
}


@pytest.mark.parametrize("name", COPIES)
def test_what_a_variable_holds_too_is_left_to_it(name, monkeypatch):
    options, copied = COPIES[name]
    model, copies = kept_at(**options), []
    original = control_flow.Loop._without_copies
    monkeypatch.setattr(
        control_flow.Loop, "_without_copies", lambda loop, *m: (copies.append(loop.copies), original(loop, *m))[1]
    )
    values = [
        deepshap.DeepExplainer(lambda x, listed=listed: model(x, listed), R).shap_values(X) for listed in (True, False)
    ]
    np.testing.assert_allclose(*values, rtol=0, atol=1e-12)
    assert any(copies) == copied


@pytest.mark.parametrize("turns", [0, 2])
def test_a_list_may_be_empty_after_no_turn(turns):
    limit, weights = tf.Variable(turns), tf.constant(np.random.default_rng(4).normal(size=(SIZE, SIZE)))

    def model(x):
        def turn(k, state, found):
            state = tf.tanh(state @ weights + x[:, 0])
            return k + 1, state, found.write(0, state)

        begun = tf.TensorArray(x.dtype, 0, dynamic_size=True, element_shape=(None, SIZE))
        _, state, found = tf.while_loop(lambda k, *_: k < limit, turn, (tf.constant(0), x[:, 1], begun))
        return state + tf.cond(limit > 0, lambda: found.stack()[0], lambda: state * 3)

    values = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    wanted = model(tf.constant(X)).numpy() - model(tf.constant(R)).numpy().mean(0)
    np.testing.assert_allclose(values.sum((1, 2)), wanted, atol=1e-12)


class DoublesHighBatches(keras.layers.Layer):
    """Decide by the mean of the whole batch."""

    def call(self, x):
        return tf.cond(tf.reduce_mean(x) > 0.5, lambda: 2 * x[:, :, 0], lambda: x[:, :, 0])


def of_layer():
    inputs = keras.Input((6, 2))
    return keras.Model(inputs, keras.layers.Dense(1)(DoublesHighBatches()(inputs)))


def in_python(x):
    if tf.reduce_mean(x) > 0.5:
        x = 2 * x
    return tf.reduce_sum(x[..., 0], -1, keepdims=True)


def by_number_of_values(x):
    high = tf.where(x > 0.5)
    return tf.cond(tf.shape(high)[0] > 100, lambda: 2 * x[:, 0], lambda: x[:, 0])


def by_turns(x):
    (x,) = tf.while_loop(lambda x: tf.reduce_mean(x) < 0.7, lambda x: (1.3 * x,), (x,))
    return x[:, 0]


@pytest.mark.parametrize(
    "make",
    [of_layer, lambda: in_python, lambda: tf.function(in_python), lambda: by_number_of_values, lambda: by_turns],
    ids=["tf.cond", "if", "if in a tf.function", "number of values", "loop"],
)
def test_decisions_by_the_whole_batch_are_refused(make):
    """With these seeds the few rows that are compared in other batches are all decided alike."""
    model = make()
    for seed in (0, 2, 8, 11):
        values = np.random.default_rng(seed).random((25, 6, 2)).astype("float32")
        alone = np.concatenate([np.asarray(model(values[i : i + 1])) for i in range(25)])
        together = [np.asarray(model(part)) for part in (values[:20], values[20:])]
        assert np.abs(np.concatenate(together) - alone).max() > 1e-3
        with pytest.raises((deepshap.BatchMixingError, deepshap.ControlFlowError)):
            deepshap.DeepExplainer(model, values[:20])(values[20:])


def test_decisions_by_each_row_are_explained():
    """In a loop over rows, the branch of a row is its own."""

    def model(x):
        return tf.map_fn(lambda row: tf.cond(tf.reduce_sum(row) > 0, lambda: 3 * row[0], lambda: row[1]), x)

    values = np.random.default_rng(0).random((9, 4)).astype("float32")
    explanation = deepshap.DeepExplainer(model, values[:4])(values[4:])
    expected = 3 * (values[4:, 0] - values[:4, 0].mean())
    np.testing.assert_allclose(explanation.values[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(explanation.values[:, 1:], 0, atol=1e-7)

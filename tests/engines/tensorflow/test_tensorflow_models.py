"""What is not a Keras model: functions of TensorFlow, SavedModels, symbolic tensors; and how explaining them leaves things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import Sequential, ops
from keras import layers as L
from keras_checks import distance
from keras_models import draw_weights, precision
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tiers import mostly_wide

import deepshap

ROWS, REFERENCES, STEPS, FEATURES = 2, 3, 4, 3
W = np.random.default_rng(3).normal(size=(FEATURES, FEATURES))


def rows(number: int, seed: int) -> np.ndarray:
    """Draw sequences in float64."""
    return np.random.default_rng(seed).normal(size=(number, STEPS, FEATURES))


X, R = rows(ROWS, 1), rows(REFERENCES, 2)


def explain(model: Any, **options: Any) -> np.ndarray:
    """Explain the rows of this module."""
    return deepshap.DeepExplainer(model, R, progress=False, **options).shap_values(X)


def exact(model: Callable[[Any], Any], values: np.ndarray) -> None:
    """The sums are the differences of the outputs, which TensorFlow itself computes."""
    outputs, expected = (np.asarray(model(tf.constant(side))) for side in (X, R))
    sums = values.sum((1, 2))
    assert np.abs(sums - (outputs - expected.mean(0))).max() <= 1e-9 * max(
        np.abs(outputs).max(), np.abs(expected).max()
    )


# ---------------------------------------------------------------------- functions
def plain(x: Any) -> Any:
    """Operators and functions of TensorFlow."""
    h = tf.nn.softplus(tf.einsum("btf,fg->btg", x, W)) * tf.sigmoid(x[..., ::-1])
    return tf.reduce_max(h, 1) / (1 + tf.reduce_sum(x**2, [1, 2], keepdims=False)[:, None])


def looping(x: Any) -> Any:
    """A recurrence by tf.while_loop."""

    def step(t: Any, h: Any) -> Any:
        return t + 1, tf.tanh(h @ W + x[:, t])

    start = tf.zeros([tf.shape(x)[0], FEATURES], x.dtype)
    return tf.while_loop(lambda t, h: t < tf.shape(x)[1], step, [0, start])[1]


def collecting(x: Any) -> Any:
    """A recurrence whose states are collected in a TensorArray."""
    steps = x.shape[1]
    found = tf.TensorArray(x.dtype, steps, element_shape=[None, FEATURES])

    def step(t: Any, h: Any, found: Any) -> Any:
        h = tf.sigmoid(h @ W + x[:, t]) * h + x[:, t]
        return t + 1, h, found.write(t, h)

    start = tf.zeros([tf.shape(x)[0], FEATURES], x.dtype)
    found = tf.while_loop(lambda t, *_: t < steps, step, [0, start, found])[2]
    return tf.reduce_prod(tf.transpose(found.stack(), [1, 0, 2])[:, -2:], 1)


def scanning(x: Any) -> Any:
    """A recurrence by tf.scan."""
    found = tf.scan(lambda h, z: tf.tanh(h @ W + z), tf.transpose(x, [1, 0, 2]), tf.zeros_like(x[:, 0]))
    return tf.transpose(found, [1, 0, 2])


def mapping(x: Any) -> Any:
    """Rows one by one."""
    return tf.map_fn(lambda row: tf.tanh(tf.reduce_sum(row @ W, 0)), x)


@tf.function
def with_autograph(x: Any) -> Any:
    """A Python loop and a branch that TensorFlow makes its own."""
    h = tf.zeros_like(x[:, 0])
    for t in tf.range(tf.shape(x)[1]):
        if t % 2 == 0:  # noqa: SIM108 (a tf.cond by autograph)
            h = tf.tanh(h + x[:, t])
        else:
            h = h * tf.sigmoid(x[:, t])
    return h


@tf.custom_gradient
def surrogate(x: Any) -> Any:
    """A step whose gradient pretends to be another's."""
    return tf.round(x), lambda upstream: upstream * 5


def with_keras_ops(x: Any) -> Any:
    """keras.ops.scan, while_loop, fori_loop and vectorized_map."""
    last, _ = ops.scan(lambda h, z: (ops.tanh(h + z), h), ops.zeros_like(x[:, 0]), ops.swapaxes(x, 0, 1))
    _, looped = ops.while_loop(lambda t, h: t < 3, lambda t, h: (t + 1, ops.sin(h)), (0, last))
    summed = ops.fori_loop(0, STEPS, lambda t, h: h * ops.sigmoid(x[:, t]), looped)
    return ops.exp(summed) + ops.vectorized_map(ops.tanh, x[:, 0])


def choosing(x: Any) -> Any:
    """Conditions that depend on the input."""
    kept = tf.reduce_sum(x, -1, keepdims=True) > 0
    return tf.reduce_sum(tf.where(kept, tf.exp(x), -x), 1) + tf.cast(tf.reduce_any(kept, 1), x.dtype)


def branching(x: Any) -> Any:
    """Conditions on a size and on the data, and a choice between several."""
    h = tf.cond(tf.shape(x)[1] > 3, lambda: tf.tanh(x @ W), lambda: x)
    h = tf.cond(tf.reduce_max(tf.abs(x)) < 100, lambda: h * tf.sigmoid(x), lambda: -h)
    return tf.switch_case(tf.shape(x)[2] - 2, [lambda: h, lambda: tf.reduce_max(h, 1), lambda: tf.exp(h)])


FUNCTIONS = {
    function.__name__: function
    for function in (plain, looping, collecting, scanning, mapping, with_keras_ops, choosing, branching)
}


@pytest.mark.parametrize("name", mostly_wide(FUNCTIONS, {"plain", "looping", "mapping", "choosing"}))
def test_functions_are_explained_exactly_and_as_tf_functions_too(name):
    function = FUNCTIONS[name]
    values = explain(tf.function(function))
    exact(function, values)
    if name != "mapping":
        assert_close(
            deepshap.DeepExplainer(function, tf.constant(R), progress=False).shap_values(tf.constant(X)), values
        )


# ---------------------------------------------------------------------- parts that grow from turn to turn
def attended(h: Any, seen: Any) -> Any:
    return tf.einsum("bt,btf->bf", tf.nn.softmax(tf.einsum("btf,bf->bt", seen, h + 0.3)), seen)


PARTS = {
    "mean": (lambda x, k: x[:, : k + 1], lambda h, seen: tf.reduce_mean(seen, 1)),
    "squares": (lambda x, k: x[:, k:], lambda h, seen: tf.reduce_mean(tf.square(seen), 1)),
    "window": (lambda x, k: x[:, tf.maximum(k - 2, 0) : k + 1], lambda h, seen: tf.reduce_sum(seen, 1)),
    "slice": (lambda x, k: tf.slice(x, [0, 0, 0], tf.stack([-1, k + 1, -1])), lambda h, seen: tf.reduce_sum(seen, 1)),
    "gather": (lambda x, k: tf.gather(x, tf.range(k + 1), axis=1), lambda h, seen: tf.reduce_mean(seen, 1)),
    "attention": (lambda x, k: x[:, : k + 1], attended),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_grow_in_a_loop(name):
    part, change = PARTS[name]
    steps, features = X.shape[1:]

    def turn(k: Any, h: Any, x: Any) -> Any:
        return tf.ensure_shape(h * 0.5 + tf.tanh(change(h, part(x, k))), [None, features])

    def looping(x: Any) -> Any:
        return tf.while_loop(lambda k, h: k < steps, lambda k, h: (k + 1, turn(k, h, x)), (0, x[:, 0] * 0.1))[1]

    def written_out(x: Any) -> Any:
        h = x[:, 0] * 0.1
        for k in range(steps):
            h = turn(k, h, x)
        return h

    values = explain(looping)
    exact(looping, values)
    assert_close(values, explain(written_out))


# ---------------------------------------------------------------------- branches that the data decide
def of_positive(h: Any) -> Any:
    """What rows with a positive sum go through."""
    return tf.reduce_sum(tf.tanh(h @ W), -2)


def of_negative(h: Any) -> Any:
    """What other rows go through."""
    return tf.reduce_prod(tf.sigmoid(h), -2)


def by_batch(x: Any) -> Any:
    """All rows decide together."""
    return tf.cond(tf.reduce_sum(x) > 0, lambda: of_positive(x), lambda: of_negative(x))


def by_row(x: Any) -> Any:
    """Every row decides for itself."""
    return tf.map_fn(lambda r: tf.cond(tf.reduce_sum(r) > 0, lambda: of_positive(r), lambda: of_negative(r)), x)


def by_row_with_case(x: Any) -> Any:
    """The same by tf.case, on numbers."""
    which = lambda r: tf.cast(tf.reduce_sum(r) > 0, tf.int32)  # noqa: E731
    return tf.map_fn(lambda r: tf.switch_case(which(r), [lambda: of_negative(r), lambda: of_positive(r)]), x)


@tf.function
def by_loop(x: Any) -> Any:
    """Every step of a loop decides; the state goes on."""
    h = x[:, 0]
    for t in tf.range(1, tf.shape(x)[1]):
        h = tf.tanh(h + x[:, t]) if tf.reduce_sum(x[:, t]) > 0 else h * tf.sigmoid(x[:, t])
    return h


@pytest.mark.parametrize("model", [by_batch, by_row, by_row_with_case])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_branch_that_both_sides_take_is_explained_as_if_it_were_the_model(model, sign):
    x, r = sign * np.abs(X), sign * np.abs(R)
    found = deepshap.DeepExplainer(tf.function(model), r, progress=False).shap_values(x)
    taken = tf.function(of_positive if sign > 0 else of_negative)
    assert_close(found, deepshap.DeepExplainer(taken, r, progress=False).shap_values(x))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_branch_in_a_loop(sign):
    x, r = sign * np.abs(X), sign * np.abs(R)
    found = deepshap.DeepExplainer(by_loop, r, progress=False).shap_values(x)
    outputs, expected = (np.asarray(by_loop(tf.constant(side))) for side in (x, r))
    assert_close(found.sum((1, 2)), outputs - expected.mean(0))


@pytest.mark.parametrize("model", [by_row, by_row_with_case])
def test_branches_that_differ_are_an_error_that_says_what_to_do(model):
    explainer = deepshap.DeepExplainer(tf.function(model), -np.abs(R), progress=False)
    with pytest.raises(deepshap.ControlFlowError, match=r"a condition .* takes another branch .* tf\.where"):
        explainer.shap_values(np.abs(X))


def test_a_branch_around_an_inner_layer_and_a_loop_before_it():
    with precision("float64"):
        dense = L.Dense(2, activation="tanh")
        dense.build((None, FEATURES))
        draw_weights(dense)

    def model(x: Any) -> Any:
        turns = tf.cast(tf.reduce_max(tf.abs(x)) > 1e-9, tf.int32) + 1
        h = tf.while_loop(lambda t, h: t < turns, lambda t, h: (t + 1, tf.sin(h)), [0, x[:, 0]])[1]
        h = tf.cond(tf.reduce_sum(x) > 0, lambda: h, lambda: -h)
        return dense(h) ** 2

    x, r = np.abs(X), np.abs(R)
    values = deepshap.DeepExplainer((model, dense), r, progress=False).shap_values(x)
    outputs, expected = (np.asarray(model(tf.constant(side))) for side in (x, r))
    assert_close(values.sum(1), outputs - expected.mean(0))
    with pytest.raises(deepshap.DeepShapError):
        deepshap.DeepExplainer((model, dense), -r, progress=False).shap_values(x)


def test_autograph_and_custom_gradients_are_explained_by_their_values():
    exact(with_autograph, explain(with_autograph))
    stepping = tf.function(lambda x: tf.reduce_sum(surrogate(3 * x), 1))
    exact(stepping, explain(stepping))


def test_concrete_functions_and_modules():
    class Module(tf.Module):
        def __init__(self) -> None:
            self.kernel = tf.Variable(W)

        @tf.function
        def __call__(self, x: Any) -> Any:
            return tf.tanh(x[:, 0] @ self.kernel)

    module = Module()
    values = explain(module)
    exact(module, values)
    concrete = module.__call__.get_concrete_function(tf.TensorSpec([None, STEPS, FEATURES], tf.float64))
    assert_close(explain(concrete), values)
    module.kernel.assign(2 * W)
    exact(module, explain(module))


# ---------------------------------------------------------------------- saved models and symbolic tensors
@pytest.fixture(scope="module")
def lstm() -> Any:
    """A model in float64 with drawn weights."""
    with precision("float64"):
        model = Sequential([keras.Input((STEPS, FEATURES)), L.LSTM(5), L.Dense(4, activation="tanh"), L.Dense(2)])
        draw_weights(model)
    return model


@pytest.fixture(scope="module")
def wanted(lstm) -> np.ndarray:
    return explain(lstm)


def test_saved_models(lstm, wanted, tmp_path):
    lstm.export(str(tmp_path / "exported"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    assert_close(explain(loaded.serve), wanted)
    assert_close(explain(loaded.signatures["serving_default"]), wanted)
    with precision("float64"):
        assert_close(explain(L.TFSMLayer(str(tmp_path / "exported"), call_endpoint="serve")), wanted)
    tf.saved_model.save(lstm, str(tmp_path / "saved"))
    saved = tf.saved_model.load(str(tmp_path / "saved"))  # a signature alone does not keep its variables
    assert_close(explain(saved.signatures["serving_default"]), wanted)
    lstm.save(tmp_path / "model.keras")
    assert_close(explain(keras.saving.load_model(tmp_path / "model.keras")), wanted)


@pytest.mark.wide
@pytest.mark.parametrize("imported", [False, True])
def test_frozen_functions_with_loops(lstm, wanted, imported):
    """As they are, and as graph definitions that are imported again."""
    call = tf.function(lambda x: lstm(x)).get_concrete_function(tf.TensorSpec((None, STEPS, FEATURES), X.dtype))
    frozen = convert_variables_to_constants_v2(call, lower_control_flow=False)
    if imported:
        names = frozen.inputs[0].name, frozen.outputs[0].name
        definition = frozen.graph.as_graph_def()
        module = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(definition, name=""), [])
        frozen = module.prune(*names)
    assert_close(explain(frozen), wanted)


def test_outputs_by_the_names_that_keras_gives_them():
    given = keras.Input((STEPS, FEATURES), dtype="float64")
    flat = L.Flatten()(given)
    heads = [L.Dense(n, name=name, dtype="float64")(flat) for n, name in ((1, "mean"), (2, "scale"))]
    model = keras.Model(given, heads)
    assert_close(explain(model, output="scale"), explain(keras.Model(given, heads[1])))
    with pytest.raises(deepshap.InputError, match=r"'mean': a tensor .*'scale': a tensor"):
        explain(model, output="variance")


def test_symbolic_tensors_as_shap_takes_them(lstm, wanted):
    for inputs in (lstm.inputs, lstm.inputs[0], lstm.layers[0].input):
        for output in (lstm.outputs, lstm.outputs[0], lstm.layers[-1].output):
            assert_close(explain((inputs, output)), wanted)
    hidden = explain((lstm.inputs, lstm.layers[1].output))
    assert hidden.shape == (ROWS, STEPS, FEATURES, 4)
    found = deepshap.DeepExplainer((lstm.layers[1].input, lstm.outputs), lstm.layers[0](R).numpy(), progress=False)
    assert found.shap_values(lstm.layers[0](X).numpy()).shape == (ROWS, 5, 2)


def test_an_inner_layer(lstm):
    explainer = deepshap.DeepExplainer((lstm, lstm.layers[1]), R, progress=False)
    states = [np.asarray(lstm.layers[0](side)) for side in (X, R)]
    alone = deepshap.DeepExplainer(Sequential(lstm.layers[1:]), states[1], progress=False)
    assert_close(explainer.shap_values(X), alone.shap_values(states[0]))


def test_one_input_by_a_function_of_the_model(lstm, wanted):
    assert_close(explain(lambda x: lstm(x)[:, 1]), wanted[..., 1])
    assert_close(explain(lstm, output=lambda result: result[:, :1]), wanted[..., :1])


# ---------------------------------------------------------------------- lengths beside the rows
def by_lengths(layer: Any) -> Any:
    """A model of sequences and their lengths, which mask the steps behind them."""
    series, lengths = keras.Input((STEPS, FEATURES)), keras.Input((), dtype="int32")
    mask = L.Lambda(lambda n: ops.arange(STEPS, dtype="int32")[None, :] < n[:, None], output_shape=(STEPS,))(lengths)
    return keras.Model([series, lengths], layer(series, mask))


def pooled_attention(series: Any, mask: Any) -> Any:
    """Attention to the steps that are there, and their mean."""
    h = L.MultiHeadAttention(2, 3)(series, series, attention_mask=mask[:, None, :])
    return L.GlobalAveragePooling1D()(h, mask=mask)


LAYERS = {
    "LSTM": lambda series, mask: L.LSTM(3)(series, mask=mask),
    "GRU stack": lambda series, mask: L.GRU(2)(L.GRU(3, return_sequences=True)(series, mask=mask), mask=mask),
    "both directions": lambda series, mask: L.Bidirectional(L.SimpleRNN(3))(series, mask=mask),
    "attention": pooled_attention,
}


@pytest.mark.parametrize("name", mostly_wide(LAYERS, {"LSTM", "attention"}))
def test_padding_is_attributed_exactly_nothing(name):
    """Each row's references are read with the row's own length, and what lies behind it differs."""
    with precision("float64"):
        model = by_lengths(LAYERS[name])
        draw_weights(model)
        lengths = np.array([2, 3], "int32")
        explainer = deepshap.DeepExplainer(model, R, progress=False)
        explanation = explainer(X, additional_forward_args=lengths)
        for row, length in enumerate(lengths):
            assert not explanation.values[row, length:].any()
            assert np.abs(explanation.values[row, :length]).min() > 0
            outputs = model.predict([X[row : row + 1], lengths[row : row + 1]], verbose=0)[0]
            expected = model.predict([R, np.full(REFERENCES, length, "int32")], verbose=0).mean(0)
            assert_close(explanation.base_values[row], expected)
            assert_close(explanation.values[row].sum((0, 1)), outputs - expected)


# ---------------------------------------------------------------------- long sequences, and tracing once
@pytest.mark.wide
def test_long_sequences_and_few_traces():
    model = Sequential([keras.Input((None, 2)), L.LSTM(3)])
    traces = []

    @tf.function
    def counted(x: Any) -> Any:
        traces.append(x.shape)
        return model(x)

    explainer = deepshap.DeepExplainer(counted, np.zeros((1, 2000, 2), "float32"), progress=False)
    long = np.random.default_rng(0).normal(size=(3, 2000, 2)).astype("float32")
    values = explainer.shap_values(long[:1])
    assert distance(values.sum((1, 2)) + explainer.expected_value, model(long[:1]).numpy()) < 1e-4
    before = len(traces)
    for number in (1, 2, 3):
        explainer.shap_values(long[:number])
    assert len(traces) <= before + 1

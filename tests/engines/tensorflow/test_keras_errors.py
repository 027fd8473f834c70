"""Every mistake with a Keras model gets an error that says what, where, why and what to do: the class that PyTorch's gets."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import Sequential, ops
from keras import layers as L
from keras_checks import snapshot
from keras_models import draw_weights, functional, precision

import deepshap

X, R = (np.random.default_rng(seed).normal(size=(rows, 4)) for seed, rows in ((1, 3), (2, 5)))
# What the two frameworks call alike is called alike here.
TF = SimpleNamespace(
    tanh=tf.tanh, log=tf.math.log, softmax=lambda x, axis: tf.nn.softmax(x, axis), rand=lambda x: tf.random.uniform((4,)),
    mean=lambda x, axis: tf.reduce_mean(x, axis), sum=lambda x, axis: tf.reduce_sum(x, axis, keepdims=True),
    total=tf.reduce_sum, cumsum=lambda x: tf.cumsum(x, 0), argmax=lambda x: tf.argmax(x, 1), norm=tf.norm,
    stack=tf.stack, cast=lambda x: tf.cast(x, tf.float64), take=lambda x, at: tf.gather(x, at, batch_dims=1),
)  # fmt: skip
TORCH = SimpleNamespace(
    tanh=torch.tanh, log=torch.log, softmax=lambda x, axis: torch.softmax(x, axis), rand=lambda x: torch.rand(4),
    mean=lambda x, axis: x.mean(axis), sum=lambda x, axis: x.sum(axis, keepdim=True),
    total=torch.sum, cumsum=lambda x: x.cumsum(0), argmax=lambda x: x.argmax(1), norm=torch.norm,
    stack=torch.stack, cast=lambda x: x.double(), take=lambda x, at: x.gather(1, at[:, None])[:, 0],
)  # fmt: skip


def mistaken(framework: Any, function: Callable[..., Any], background: Any, rows: Any, **options: Any) -> Exception:
    """What explaining a function of either framework raises."""
    tensor = tf.constant if framework is TF else torch.tensor

    def read(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [read(part) for part in value]
        if isinstance(value, dict):
            return {key: read(part) for key, part in value.items()}
        return tensor(value) if isinstance(value, np.ndarray) and value.dtype.kind not in "UV" else value

    later = {key: options.pop(key) for key in ("ranked_outputs", "output_rank_order") if key in options}

    def explain() -> None:
        model = lambda *x: function(framework, *x)  # noqa: E731 (a function of its framework, as users have it)
        explainer = deepshap.DeepExplainer(model, read(background), progress=False, **options)
        explainer.shap_values(read(rows), **later)

    with pytest.raises(Exception) as caught:  # which one is what is asked
        explain()
    return caught.value


def alike(
    error: type[Exception], words: str, function: Any = None, background: Any = R, rows: Any = X, **options: Any
) -> None:
    """Both frameworks raise the same class; Keras' message has the words."""
    function = function or (lambda m, *x: m.tanh(x[0]))
    for framework in (TF, TORCH):
        found = mistaken(framework, function, background, rows, **options)
        assert type(found) is error, f"{framework is TORCH}: {found!r}"
        for word in words.split(" | ") if framework is TF else ():
            assert word in str(found)


# ---------------------------------------------------------------------- inputs that do not fit
INPUTS: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "rows of another shape": ("(3,) | (4,)", R, X[:, :3], {}),
    "an axis too many": ("(4, 1)", R, X[:, :, None], {}),
    "a row without its axis": ("X has the shape of one row, (4,) | x[None]", R, X[0], {}),
    "a number": ("X must be a tensor or an array, not a float", R, X[0, 0], {}),
    "a list for one": ("X is a list", R, [X, X], {}),
    "one for a list": ("list of 2", [R, R], X, {}),
    "too short a list": ("list of 2", [R, R], [X], {}),
    "rows that differ": ("different numbers of rows: [5, 2]", [R, R[:2]], [X, X], {}),
    "other keys": ("'a' | 'b'", {"a": R}, {"b": X}, {}),
    "an array for a dict": ("dict", {"a": R}, X, {}),
    "a dict for an array": ("dict", R, {"a": X}, {}),
    "no inputs": ("background", [], [], {}),
    "no background": ("background is None", None, X, {}),
    "records": ("numeric", R, np.zeros((3, 4), [("a", "f4")]), {}),
    "no references": ("background | empty", R[:0], X, {}),
    "no rows": ("X | empty", R, X[:0], {}),
    "text": ("str", R, "text", {}),
    "strings": ("numeric", R, np.array([["a"] * 4]), {}),
    "integers for floats": ("dtype int64 | float64", R, X.astype(int), {}),
    "complex numbers": ("complex", R, X + 1j, {}),
    "NaN": ("X | row 1", R, np.where(np.arange(12).reshape(3, 4) == 5, np.nan, X), {}),
    "infinity in the background": ("background | row 4", np.where(np.arange(20).reshape(5, 4) == 17, np.inf, R), X, {}),
    "axes of rows": ("batch_axis", [R, R], [X, X], {"batch_axis": [0]}),
    "no such axis": ("batch axis 2", R, X, {"batch_axis": 2}),
    "no such axis from the end": ("batch axis -3", R, X, {"batch_axis": -3}),
    "no budget": ("max_memory", R, X, {"max_memory": 0}),
    "a budget in words": ("max_memory='much' | '500 MB'", R, X, {"max_memory": "much"}),
    "more outputs than there are": ("ranked_outputs | 4", R, X, {"ranked_outputs": 9}),
    "an order that is none": ("'best'", R, X, {"ranked_outputs": 1, "output_rank_order": "best"}),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_do_not_fit(name):
    words, background, rows, options = INPUTS[name]
    alike(deepshap.InputError, words, None, background, rows, **options)


OUTPUTS: dict[str, tuple[Callable[..., Any], Any, str]] = {
    "a tuple": (lambda m, x: (x, m.tanh(x)), None, "output= | 0: a tensor | 1: a tensor"),
    "no such key": (lambda m, x: {"a": x, "b": x}, "c", "'c' | 'a'"),
    "no such index": (lambda m, x: (x, x), 2, "output=2 | 0: a tensor"),
    "a part of a tensor": (lambda m, x: m.tanh(x), 7, "output=7 | a tensor"),
    "a function that returns text": (lambda m, x: x, lambda y: "no tensor", "str"),
    "integers": (lambda m, x: m.argmax(x), None, "int64 | logits"),
    "nothing": (lambda m, x: None, None, "NoneType"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_that_cannot_be_explained(name):
    function, output, words = OUTPUTS[name]
    alike(deepshap.InputError, words, function, output=output)


# ---------------------------------------------------------------------- rows, paths, numbers
def drawn_in_python(m: Any, x: Any) -> Any:
    """Random numbers that the framework knows nothing of."""
    return x * float(np.random.default_rng().normal())


class Counter:
    """Another function at each call."""

    calls = 0

    def __call__(self, m: Any, x: Any) -> Any:
        self.calls += 1
        return x * self.calls


def by_turns(m: Any, x: Any) -> Any:
    """A loop with as many turns as the first row asks for."""
    if m is TF:
        return tf.while_loop(
            lambda t, h: t < tf.reduce_sum(x[:1]), lambda t, h: (t + 1, h * 2), (tf.constant(-9.0, x.dtype), x)
        )[1]
    turn, h = -9.0, x
    while turn < x[:1].sum():
        turn, h = turn + 1, h * 2
    return h


MODELS: dict[str, tuple[type[Exception], str, Callable[..., Any]]] = {
    "centred": (deepshap.BatchMixingError, "row", lambda m, x: x - m.mean(x, 0)),
    "softmax over rows": (deepshap.BatchMixingError, "row", lambda m, x: m.softmax(x, 0)),
    "cumsum": (deepshap.BatchMixingError, "row", lambda m, x: m.cumsum(x)),
    "a scalar": (deepshap.BatchMixingError, "row", lambda m, x: m.total(x)),
    "one row": (deepshap.BatchMixingError, "row", lambda m, x: m.sum(x, 0)),
    "norm of all": (deepshap.BatchMixingError, "row", lambda m, x: x / m.norm(x)),
    "random numbers": (deepshap.UnsupportedOperationError, "(random)", lambda m, x: x + m.cast(m.rand(x))),
    "logarithm of what is not positive": (deepshap.NonFiniteError, "row 0", lambda m, x: m.log(x - 100)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_have_no_attribution_per_row(name):
    error, words, function = MODELS[name]
    alike(error, words, function)


@pytest.mark.parametrize(
    ("function", "words"),
    [(drawn_in_python, "random numbers"), (Counter(), "state kept in Python")],
    ids=["drawn", "counted"],
)
def test_numbers_that_python_makes_anew(function, words):
    """PyTorch shows which operation takes them."""
    of_keras = mistaken(TF, function, R, X)
    assert isinstance(of_keras, deepshap.BatchMixingError)
    assert words in str(of_keras)
    of_torch = mistaken(TORCH, function, R, X)
    assert isinstance(of_torch, deepshap.ControlFlowError)
    assert "takes other numbers" in str(of_torch)


def test_numbers_of_the_generator_that_all_share():
    """Which every run finds as the one before it did."""
    alike(deepshap.BatchMixingError, "random numbers", lambda m, x: x * float(np.random.rand()))


def test_loops_and_branches_that_differ():
    def turns(x: Any) -> Any:
        return tf.while_loop(
            lambda t, h: tf.reduce_any(t < x[:, 0] * 3), lambda t, h: (t + 1, h * 2), (tf.constant(-9.0, x.dtype), x)
        )[1]

    def branch(x: Any) -> Any:
        return tf.map_fn(lambda row: tf.cond(row[0] > 0, lambda: row * 2, lambda: tf.tanh(row)), x)

    for function in (turns, branch):
        with pytest.raises((deepshap.ControlFlowError, deepshap.BatchMixingError), match=r"tf\.where|row"):
            deepshap.DeepExplainer(tf.function(function), R, progress=False).shap_values(X)


class Branching(L.Layer):
    """A layer with a Python branch on a value."""

    def call(self, x: Any) -> Any:
        return x * 2 if float(ops.sum(x)) > 0 else x


def test_what_is_no_model(small):
    for wrong, words in ((keras.Model, "the class Model: make one"), ("model.keras", "not a str"), (7, "not a int")):
        with pytest.raises(deepshap.InputError, match=words):
            deepshap.DeepExplainer(wrong, SERIES)
    with pytest.raises(deepshap.UnsupportedOperationError, match="the model itself, not its predict"):
        deepshap.DeepExplainer(small.predict, SERIES, progress=False).shap_values(SERIES)


def test_values_that_go_through_python():
    model = Sequential([keras.Input((4,)), L.Dense(3)])
    layer = Branching(name="branching")
    with pytest.raises(deepshap.UnsupportedOperationError, match=r"float\(x\).*tf\.where"):
        deepshap.DeepExplainer(lambda x: layer(model(x)), R.astype("float32"), progress=False).shap_values(X)


# ---------------------------------------------------------------------- operations without a rule
class Unknown(L.Layer):
    """A layer of two operations without a rule, and one that sees no signal."""

    def call(self, x: Any) -> Any:
        matrices = ops.reshape(x, (-1, 2, 2)) + 5 * tf.eye(2, dtype=x.dtype)
        still = tf.linalg.inv(tf.eye(2, dtype=x.dtype))
        return tf.linalg.trace(tf.linalg.inv(matrices) @ still) + tf.linalg.svd(matrices)[0][:, 0]


def test_all_operations_without_a_rule_are_listed_with_their_layers():
    with precision("float64"):
        model = Sequential([
            keras.Input((4,)), L.Dense(4, name="first"), Sequential([Unknown(name="unknown"), L.Reshape((1,))], name="inner"),
            L.Lambda(lambda x: tf.quantization.fake_quant_with_min_max_args(tf.cast(x, "float32"), -9, 9, 4), name="rounded"),
            L.RepeatVector(2), L.LSTM(2, name="reader"),
        ])  # fmt: skip
    model(X)  # Keras notes first calls
    before = snapshot(model)
    with pytest.raises(deepshap.UnsupportedOperationError) as caught:
        deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    assert snapshot(model) == before
    message = str(caught.value)
    listed = [line.strip() for line in message.splitlines() if line.startswith("  ")]
    assert listed == [
        "MatrixInverse in layer 'inner.unknown'", "Svd in layer 'inner.unknown'", "FakeQuantWithMinMaxArgs in layer 'rounded'",
    ]  # fmt: skip
    for word in ('register_rule("MatrixInverse", rule)', "elementwise", "docs/adding-a-rule.md"):
        assert word in message


def test_functions_without_layers_have_places_too():
    with pytest.raises(deepshap.UnsupportedOperationError, match="MatrixInverse in the model"):
        deepshap.DeepExplainer(
            lambda x: tf.linalg.inv(tf.eye(4, dtype=x.dtype) + x[:, None] * x[:, :, None]),
            tf.constant(R),
            progress=False,
        ).shap_values(tf.constant(X))


DRAWS = {
    "beside the signal": (lambda x: x + tf.random.uniform(tf.shape(x), dtype=x.dtype), "RandomUniform"),
    "from the signal": (lambda x: x * tf.random.poisson([], tf.exp(x), x.dtype), "RandomPoissonV2"),
    "dropout": (lambda x: tf.nn.dropout(x, 0.5), "RandomUniform"),
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_operations_are_told_as_such(name):
    function, operation = DRAWS[name]
    with pytest.raises(deepshap.UnsupportedOperationError, match=rf"{operation} \(random\) in") as caught:
        deepshap.DeepExplainer(tf.function(function), R, progress=False).shap_values(X)
    assert "keras.layers.Dropout" in str(caught.value)
    assert "register_rule" not in str(caught.value)
    found = deepshap.check(tf.function(function), X).uses
    assert [use.treatment for use in found if operation in use.name] == ["NO RULE"]


def test_random_operations_beside_others_without_a_rule():
    both = tf.function(lambda x: tf.linalg.inv(tf.nn.dropout(x, 0.5)[:, None] * x[:, :, None]))
    with pytest.raises(deepshap.UnsupportedOperationError, match=r"RandomUniform \(random\)") as caught:
        deepshap.DeepExplainer(both, R, progress=False).shap_values(X)
    for words in ('register_rule("MatrixInverse", rule)', "keras.layers.Dropout"):
        assert words in str(caught.value)


def test_code_outside_of_tensorflow():
    def outside(x: Any) -> Any:
        return tf.ensure_shape(tf.py_function(lambda v: v * 2, [x], x.dtype), x.shape)

    with pytest.raises(deepshap.UnsupportedOperationError, match="PyFunc"):
        deepshap.DeepExplainer(tf.function(outside), R, progress=False).shap_values(X)


# ---------------------------------------------------------------------- Keras' own forms
@pytest.fixture(scope="module")
def small() -> Any:
    """A model of sequences."""
    with precision("float64"):
        model = Sequential([keras.Input((3, 2)), L.LSTM(2, name="memory"), L.Dense(2, name="head")])
        draw_weights(model)
    return model


SERIES = np.random.default_rng(5).normal(size=(4, 3, 2))
FORMS: dict[str, tuple[Any, Any, str]] = {
    "ragged": (SERIES, tf.RaggedTensor.from_row_lengths(SERIES[0], [1, 2]), "RaggedTensor.*padded"),
    "sparse": (SERIES, tf.sparse.from_dense(SERIES), "SparseTensor.*dense"),
    "strings of TensorFlow": (SERIES, tf.constant([["a"]]), "numeric"),
    "a data set": (SERIES, tf.data.Dataset.from_tensor_slices(SERIES), "tensor or an array, not a"),
    "symbolic": (SERIES, keras.Input((3, 2)), "KerasTensor"),
    "objects": (SERIES, np.array([[None]]), "numeric"),
    "no row axis": (SERIES, SERIES[0], r"the shape of one row.*\(3, 2\).*\[None\]"),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_cannot_be_read(small, name):
    background, rows, words = FORMS[name]
    explainer = deepshap.DeepExplainer(small, background, progress=False)
    with pytest.raises(deepshap.InputError, match=rf"(?s){words}"):
        explainer.shap_values(rows)
    with pytest.raises(deepshap.InputError):
        deepshap.DeepExplainer(small, rows, progress=False).shap_values(rows if name != "no row axis" else background)


def test_layers_that_cannot_be_explained(small):
    for layer, words in (
        (L.Dense(2), "must be a layer of the model"),
        ("head", r"must be a layer of the model, such as model.layers\[0\], not 'head'"),
    ):
        with pytest.raises(deepshap.InputError, match=words):
            deepshap.DeepExplainer((small, layer), SERIES, progress=False).shap_values(SERIES)
    shared = L.Dense(2, name="shared")
    with precision("float64"):
        twice = functional((3, 2), lambda x: shared(shared(x)))
    with pytest.raises(deepshap.InputError, match="'shared' is called more than once"):
        deepshap.DeepExplainer((twice, shared), SERIES, progress=False).shap_values(SERIES)
    for pair in ((small.inputs, "head"), (small.inputs, small.layers), ("inputs", small.outputs)):
        with pytest.raises(deepshap.InputError, match=r"\(model, layer\)|single tensor"):
            deepshap.DeepExplainer(pair, SERIES, progress=False).shap_values(SERIES)


def test_a_way_around_the_explained_layer_is_found_out():
    with precision("float64"):
        bend = L.Activation("tanh", name="bend")
        around = functional((3, 2), lambda x: L.Add()([bend(L.Dense(2)(x)), x]))
    with pytest.raises(deepshap.AdditivityError, match="around the explained layer"):
        deepshap.DeepExplainer((around, bend), SERIES, progress=False).shap_values(SERIES)


def reader():
    return Sequential(
        [L.Input((4,), dtype="int32"), L.Embedding(10, 3, mask_zero=True), L.LSTM(2, name="memory"), L.Dense(1)]
    )


def test_a_mask_that_goes_around_the_explained_layer_is_named():
    model, ids, whole = reader(), np.array([[3, 4, 0, 0], [5, 0, 0, 0]]), np.array([[5, 1, 2, 7], [2, 3, 4, 4]])
    draw_weights(model)
    with pytest.raises(deepshap.AdditivityError, match=r"around the explained layer: Select.* at layer 'memory.*mask"):
        deepshap.DeepExplainer((model, model.layers[1]), whole, progress=False).shap_values(ids)
    same = ids[:, [0, 0, 0, 0]]  # nothing is masked
    found = deepshap.DeepExplainer((model, model.layers[1]), same, progress=False).shap_values(same)
    outputs = model(same).numpy()
    np.testing.assert_allclose(found.sum((1, 2)), outputs - outputs.mean(0), atol=1e-5)


def test_longer_references_give_padding_of_a_masked_text_attributions():
    model, ids, longer = reader(), np.array([[3, 4, 0, 0], [5, 0, 0, 0]]), np.array([[5, 1, 2, 7], [2, 3, 4, 4]])
    draw_weights(model)
    found = deepshap.DeepExplainer(model, longer, progress=False)(ids)
    found.lengths = [2, 1]
    assert found.values[:, 2:].all()
    assert found.lengths.tolist() == [2, 1]
    sums = model(ids).numpy()[:, 0] - model(longer).numpy().mean()
    np.testing.assert_allclose(found.values.sum((1, 2)), sums, atol=1e-5)
    np.testing.assert_array_equal(found.to_dataframe()["attribution"], found.values.ravel())


def test_an_id_outside_of_its_table_is_named_in_a_line():
    with pytest.raises(deepshap.InputError, match=r"indices\[0,0\] = 12 is not in \[0, 10\).*input_dim") as caught:
        deepshap.DeepExplainer(reader(), np.ones((2, 4), int), progress=False).shap_values(np.full((2, 4), 12))
    assert len(str(caught.value)) < 300


class Noisy(L.Layer):
    def __init__(self, normal):
        super().__init__()
        self.normal = normal

    def call(self, x):
        return x * (1 + 0.3 * self.normal(0.0, 1.0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("normal", [np.random.normal, random.gauss])
def test_normal_numbers_drawn_in_python_are_found_out(normal, dtype):
    """The generators keep every other normal number, so that a draw of another kind before does not change it."""
    with precision(dtype):
        model = Sequential([L.Input((3, 2)), Noisy(normal), L.Flatten(), L.Dense(1)])
    with pytest.raises(deepshap.BatchMixingError, match="random numbers of NumPy"):
        deepshap.DeepExplainer(model, SERIES, progress=False).shap_values(SERIES)


def test_a_model_that_does_not_take_the_input_says_so_itself(small):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"LSTMCell|shape"):
        deepshap.DeepExplainer(small, SERIES[:, :, :1], progress=False).shap_values(SERIES[:, :, :1])


def test_a_budget_for_less_than_a_pair(small):
    with pytest.raises(deepshap.MemoryBudgetError, match="max_memory"):
        deepshap.DeepExplainer(small, SERIES, max_memory=100, progress=False).shap_values(SERIES)


def test_no_base_value_without_the_arguments_it_depends_on():
    explainer = deepshap.DeepExplainer(lambda x, n: x * n[:, None], tf.constant(R), progress=False)
    with pytest.raises(deepshap.InputError, match=r"additional_forward_args"):
        _ = explainer.expected_value
    with pytest.raises(deepshap.InputError, match=r"additional_forward_args\[0\].*2.*3"):
        explainer.shap_values(tf.constant(X), additional_forward_args=np.ones(2))


def test_sums_that_do_not_match_say_where(small):
    deepshap.register_rule("Tanh", lambda step, m: m * 0.9)
    try:
        with pytest.raises(deepshap.AdditivityError) as caught:
            deepshap.DeepExplainer(small, SERIES, progress=False).shap_values(SERIES)
    finally:
        deepshap.unregister_rule("Tanh")
    for word in ("row", "output", "tolerance", "Most likely cause: Tanh at layer 'memory.lstm_cell", "register_rule"):
        assert word in str(caught.value)
    assert "model.double()" not in str(caught.value)


# ---------------------------------------------------------------------- what TensorFlow alone has
def linear():
    return Sequential([L.Input((4,)), L.Dense(2)])


def test_a_gradient_tape_in_a_model_is_never_taken_for_a_constant():
    model = linear()

    def of_jacobian(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.tanh(model(x))
        return tape.batch_jacobian(y, x)[:, 0]

    jacobian = of_jacobian(tf.constant(X, tf.float32)).numpy()
    assert np.abs(jacobian).max() > 0.01
    with pytest.raises(deepshap.UnsupportedOperationError, match="TanhGrad"):
        deepshap.DeepExplainer(of_jacobian, R.astype("f4"), progress=False).shap_values(X.astype("f4"))


@pytest.mark.parametrize(
    ("background", "rows", "options", "match"),
    [
        (R[:, :3], X[:, :3], {}, "the model fails on rows of shape"),
        (R, X[0], {}, r"X has the shape of one row, \(4,\), .*give x\[None\]"),
        (R, X[:, :3], {}, "3 features where 4 are expected"),
        (np.ma.masked_array(R, R > 0), X, {}, "masked values"),
        (R, tf.sparse.from_dense(X), {}, "SparseTensor; pass a dense tensor"),
        (R, keras.Input((4,)), {}, "symbolic and without values"),
        (R, X, {"batch_axis": "0"}, "batch_axis must be a whole number"),
        (R, X, {"output_names": ["a"]}, "output_names holds 1 names for an axis of 2"),
        (R, X, {"feature_names": ["a"]}, "feature_names holds 1 names for an axis of 4"),
    ],
)
def test_what_users_get_wrong_first(background, rows, options, match):
    with pytest.raises(deepshap.InputError, match=match):
        deepshap.DeepExplainer(linear(), background, progress=False, **options).shap_values(rows)


def test_the_only_tensor_and_other_orders_of_bytes():
    model = linear()
    wanted = deepshap.DeepExplainer(model, R, progress=False).shap_values(X)
    wrapped = deepshap.DeepExplainer(lambda x: {"logits": model(x), "loss": None}, R.astype(">f4"), progress=False)
    np.testing.assert_allclose(wrapped.shap_values(X.astype(">f8")), wanted, atol=1e-6)
    with pytest.raises(deepshap.InputError, match="nothing in it to explain"):
        deepshap.DeepExplainer(lambda x: model(x)[:, :0], R.astype("f4"), progress=False).shap_values(X)


def test_inside_of_a_function_of_tensorflow():
    explainer = deepshap.DeepExplainer(tf.tanh, np.zeros((2, 3), "f4"), progress=False)
    with pytest.raises(deepshap.InputError, match=r"symbolic.*outside of tf\.function"):
        tf.function(lambda x: explainer.shap_values(x))(tf.ones((2, 3)))

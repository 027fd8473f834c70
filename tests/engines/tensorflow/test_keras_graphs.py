"""A graph is used again as long as the model is the one it was made of, and no longer."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_checks import confirm

import deepshap
from deepshap.engines.tensorflow import engine, graphs

X = np.random.default_rng(1).normal(size=(3, 5, 2)).astype(np.float32)
R = np.random.default_rng(2).normal(size=(4, 5, 2)).astype(np.float32)
RATE = 1.0


class Slotted:
    """What nobody can look into."""

    __slots__ = ("rate",)


class Scaled(keras.Model):
    """A network with numbers of Python that matter, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.head = keras.layers.Flatten(), keras.layers.Dense(2)
        self._rate, self.rates, self.array, self.config_ = 1.0, [1.0], np.ones(2, np.float32), SimpleNamespace(rate=1.0)
        self.activation, self.calls = keras.ops.tanh, 0
        self.slotted = Slotted()
        self.slotted.rate = 1.0

    def call(self, x):
        self.calls += 1
        y = self.head(self.activation(self.flat(x * self._rate))) * self.rates[0]
        return y * self.array * self.config_.rate * RATE * getattr(self, "bonus", 1.0) * self.slotted.rate


def set_global(value):
    global RATE
    RATE = value


CHANGES = {
    "a private number": lambda m: setattr(m, "_rate", 0.5),
    "an entry of a list": lambda m: m.rates.__setitem__(0, 2.0),
    "an array": lambda m: m.array.__setitem__(1, 3.0),
    "a namespace": lambda m: setattr(m.config_, "rate", 2.0),
    "a function": lambda m: setattr(m, "activation", keras.ops.sigmoid),
    "a layer's activation": lambda m: setattr(m.head, "activation", keras.activations.tanh),
    "a layer's method": lambda m: setattr(m.head, "call", lambda x, **_: x[:, :2] * 2),
    "an attribute read by its name": lambda m: setattr(m, "bonus", 3.0),
    "a global variable": lambda m: set_global(3.0),
    "slots": lambda m: setattr(m.slotted, "rate", 3.0),
}


IN_A_FUNCTION = ("a private number", "a layer's activation", "slots")


@pytest.mark.parametrize(
    ("change", "as_function"), [*((c, False) for c in CHANGES), *((c, True) for c in IN_A_FUNCTION)], ids=str
)
def test_traced_anew_when_the_model_has_changed(change, as_function):
    network = Scaled()
    model = (lambda x: network(x)) if as_function else network
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    try:
        before = explainer.shap_values(X)
        CHANGES[change](network)
        confirm(explainer, model, X, R)
        assert abs(explainer.shap_values(X) - before).max() > 1e-4
    finally:
        set_global(1.0)


def test_a_number_in_a_closure():
    network, rate = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)]), 1.0

    def model(x):
        return network(x) * rate

    explainer = deepshap.DeepExplainer(model, R, progress=False)
    explainer(X)
    rate = 10.0
    confirm(explainer, model, X, R)


@pytest.fixture
def traces(monkeypatch):
    """Count functions that explain, which take long to make."""
    from deepshap.engines.tensorflow import engine

    made, original = [], engine.trace_explanation

    def explained(*arguments):
        made.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(engine, "trace_explanation", explained)
    return made


def test_traced_once_where_nothing_has_changed(traces):
    network = Scaled()
    network.slotted = None
    network.call = lambda x: network.head(network.flat(x)) * network._rate
    network.compile("sgd", "mse")
    explainer = deepshap.DeepExplainer(network, R, progress=False)
    explainer(X)
    made = len(traces)
    network.fit(X, np.zeros((3, 2), np.float32), verbose=0)
    network(X)
    confirm_sums = explainer(X).values.sum((1, 2))
    np.testing.assert_allclose(confirm_sums, network(X).numpy() - network(R).numpy().mean(0), atol=1e-5)
    assert len(traces) == made


def test_a_counter_is_no_change(traces):
    network = Scaled()
    explainer = deepshap.DeepExplainer(network, R, progress=False)
    explainer(X)
    made = len(traces)
    explainer(X)
    assert len(traces) == made


def test_a_function_of_tensorflow_keeps_its_graph_itself():
    network = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    box = SimpleNamespace(rate=1.0)
    model = tf.function(lambda x: network(x) * box.rate)
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    explainer(X)
    box.rate = 2.0
    np.testing.assert_allclose(explainer(X).outputs, model(X).numpy(), atol=1e-6)


def test_a_function_of_tensorflow_is_recognised(traces):
    """TensorFlow names what a function captures by numbers, others at each trace."""
    weights = tf.Variable(np.ones((2, 2), np.float32))
    explainer = deepshap.DeepExplainer(tf.function(lambda x: tf.tanh(x[:, 0] @ weights)), R, progress=False)
    explainer(X)
    explainer(X)
    assert len(traces) == 1


def test_a_loop_is_recognised_and_so_is_what_it_captures(traces):
    """What a loop's body slices is named by a number too; the other capture has the name of what it goes into."""
    captured = [tf.constant([[0.5], [2.0]]), tf.constant([[1.5], [-1.0]])]

    def model(x):
        def turn(k, h):
            return k + 1, tf.tanh(h + x[:, 0] @ captured[0] * captured[1][k : k + 1])

        return tf.while_loop(lambda k, h: k < 2, turn, (0, x[:, 1, :1]), maximum_iterations=2)[1]

    explainer = deepshap.DeepExplainer(model, R, progress=False)
    confirm(explainer, model, X, R)
    confirm(explainer, model, X, R)
    assert len(traces) == 1
    captured.reverse()
    confirm(explainer, model, X, R)
    assert len(traces) == 2


def test_a_vectorized_map_is_recognised(traces):
    """What it captures has a number for a name, behind that of its scope."""
    weights = tf.constant([[0.5], [-2.0]])
    explainer = deepshap.DeepExplainer(
        lambda x: tf.reduce_sum(tf.vectorized_map(lambda row: tf.tanh(row @ weights), x), 1), R, progress=False
    )
    explainer(X)
    explainer(X)
    assert len(traces) == 1


# ---------------------------------------------------------------------- several explainers of one model
def test_explainers_of_one_model_share_what_was_traced(traces):
    network = Scaled()
    first, second = (deepshap.DeepExplainer(network, R, progress=False) for _ in range(2))
    first(X)
    confirm(second, network, X, R)
    assert len(traces) == 1
    network._rate = 0.5
    confirm(second, network, X, R)
    confirm(first, network, X, R)
    assert len(traces) == 2


def test_a_model_of_the_same_form_is_another_model(traces):
    for network in (Scaled(), Scaled()):
        confirm(deepshap.DeepExplainer(network, R, progress=False), network, X, R)
    assert len(traces) == 2


def test_a_rule_registered_between_two_explainers_is_used(traces):
    network = Scaled()
    deepshap.DeepExplainer(network, R, progress=False)(X)
    deepshap.register_rule("Tanh", "smooth")
    try:
        confirm(deepshap.DeepExplainer(network, R, progress=False), network, X, R)
        assert len(traces) == 2
    finally:
        deepshap.unregister_rule("Tanh")


def test_layers_with_rules_belong_to_their_explainer(traces):
    network = Scaled()
    for _ in range(2):
        explainer = deepshap.DeepExplainer((network, network.head), R, progress=False)
        explainer(X)
    assert len(traces) == 2


def explained_once(as_function):
    """A model that was explained and is referred to by nobody, and what was kept of it."""
    network = Scaled()
    model = tf.function(lambda x: network(x)) if as_function else network
    deepshap.DeepExplainer(model, R, progress=False).shap_values(X)  # without shap, whose import keeps frames alive
    return weakref.ref(model), id(model), len(graphs._GRAPHS[id(model)])


@pytest.mark.parametrize("as_function", [False, True])
def test_what_is_kept_goes_with_the_model(as_function):
    model, key, count = explained_once(as_function)
    gc.collect()
    assert count == 1
    assert model() is None
    assert key not in graphs._GRAPHS


def test_graphs_used_last_are_kept_as_far_as_memory_allows(monkeypatch):
    network = Scaled()
    library = SimpleNamespace(calls_python=False, size=10)
    monkeypatch.setattr(graphs, "MOST_BYTES_OF_GRAPHS", 35)
    for number, is_new in ((0, True), (1, True), (2, True), (0, False), (3, True)):
        own = SimpleNamespace(layer_calls=(), library=library, signature=number)
        assert (graphs.share_graph(network, own) is own) == is_new
    assert list(graphs._GRAPHS[id(network)]) == [2, 0, 3]


def test_lengths_in_turn_are_traced_for_explaining_once(monkeypatch):
    """More lengths than there used to be room for, each with an explainer of its own."""
    made, original = [], engine.trace_explanation
    monkeypatch.setattr(engine, "trace_explanation", lambda *a: (made.append(a), original(*a))[1])
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.Conv1D(2, 2), keras.layers.GlobalMaxPooling1D()])
    rng, lengths = np.random.default_rng(0), range(3, 13)
    for length in [*lengths, *lengths]:
        x = rng.normal(size=(2, length, 2)).astype("float32")
        deepshap.DeepExplainer(model, x, progress=False)(x)
    assert len(made) == len(lengths)

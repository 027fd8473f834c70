"""A model is explained alike in whatever form it is handed over; each value equals the explanation of the plain model."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras import Sequential, ops
from keras import layers as L
from keras_models import draw_weights, functional, precision
from tiers import mostly_wide

import deepshap

STEPS, FEATURES, PLACES = 3, 2, 2
SERIES, SERIES_R = (np.random.default_rng(seed).normal(size=(n, STEPS, FEATURES)) for seed, n in ((1, 2), (2, 3)))
PLACE, PLACE_R = (np.random.default_rng(seed).normal(size=(n, PLACES)) for seed, n in ((3, 2), (4, 3)))
BOTH, BOTH_R = [SERIES, PLACE], [SERIES_R, PLACE_R]
NAMED, NAMED_R = {"series": SERIES, "place": PLACE}, {"series": SERIES_R, "place": PLACE_R}


def explain(model: Any, background: Any, rows: Any, **options: Any) -> Any:
    """Explain rows."""
    return deepshap.DeepExplainer(model, background, progress=False, **options).shap_values(rows)


def parts(values: Any) -> list[np.ndarray]:
    """Attributions of the series and of the place."""
    return [values["series"], values["place"]] if isinstance(values, dict) else list(values)


# ---------------------------------------------------------------------- two inputs, two outputs
class Forecast(keras.Model):
    """A model of two inputs and two outputs, as its users write it: one list, or two arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.merge = L.SimpleRNN(3, unroll=True, name="memory"), L.Concatenate(name="merge")
        self.mean, self.spread = L.Dense(2, name="mean"), L.Dense(1, activation="softplus", name="spread")

    def both(self, series: Any, place: Any) -> dict[str, Any]:
        h = self.merge([self.memory(series), place])
        return {"mean": self.mean(h), "spread": self.spread(h)}

    def call(self, inputs: Any) -> dict[str, Any]:
        return self.both(inputs["series"], inputs["place"]) if isinstance(inputs, dict) else self.both(*inputs)


class Apart(Forecast):
    """The same with an argument for each input."""

    def call(self, series: Any, place: Any) -> dict[str, Any]:
        return self.both(series, place)


@pytest.fixture(scope="module")
def forecast() -> Forecast:
    """The model, called once."""
    with precision("float64"):
        model = Forecast()
        model(BOTH)
        draw_weights(model)
    return model


@pytest.fixture(scope="module")
def wanted(forecast) -> dict[str, list[np.ndarray]]:
    """Attributions of either output to both inputs."""
    found = {name: parts(explain(forecast, BOTH_R, BOTH, output=name)) for name in ("mean", "spread")}
    for name, values in found.items():
        outputs, expected = (np.asarray(forecast(side)[name]) for side in (BOTH, BOTH_R))
        assert_close(sum(v.sum(tuple(range(1, v.ndim - 1))) for v in values), outputs - expected.mean(0))
    return found


def functional_twin(model: Forecast, named: bool = False) -> Any:
    """A functional model of the same layers."""
    with precision("float64"):
        series, place = keras.Input((STEPS, FEATURES), name="series"), keras.Input((PLACES,), name="place")
        outputs = model.both(series, place)
        return keras.Model({"series": series, "place": place} if named else [series, place], outputs)


def subclass_twin(model: Forecast, kind: type) -> Any:
    """A subclassed model of the same layers."""
    with precision("float64"):
        twin = kind()
    for name in ("memory", "merge", "mean", "spread"):
        setattr(twin, name, getattr(model, name))
    return twin


def around(model: Forecast) -> Any:
    """A model around it."""
    with precision("float64"):
        inputs = [keras.Input((STEPS, FEATURES)), keras.Input((PLACES,))]
        return keras.Model(inputs, model(inputs))


def test_several_inputs_as_lists_dicts_and_arguments(forecast, wanted):
    series, place = (keras.Input(shape, dtype="float64") for shape in ((STEPS, FEATURES), (PLACES,)))
    head = forecast.both(series, place)["mean"]
    forms: dict[str, tuple[Any, Any, Any, Any]] = {
        "dict": (forecast, NAMED_R, NAMED, "mean"),
        "functional, list": (functional_twin(forecast), BOTH_R, BOTH, "mean"),
        "functional, list, by names": (functional_twin(forecast), NAMED_R, NAMED, "mean"),
        "functional, dict": (functional_twin(forecast, True), NAMED_R, NAMED, "mean"),
        "arguments": (subclass_twin(forecast, Apart), BOTH_R, BOTH, "mean"),
        "arguments by name": (subclass_twin(forecast, Apart), NAMED_R, NAMED, "mean"),
        "function": (lambda x, y: forecast.both(x, y)["mean"], BOTH_R, tuple(BOTH), None),
        "tf.function": (tf.function(lambda x, y: forecast.both(x, y)), BOTH_R, BOTH, "mean"),
        "method": (forecast.both, BOTH_R, BOTH, lambda result: result["mean"]),
        "partial": (functools.partial(forecast.both), {"place": PLACE_R, "series": SERIES_R}, NAMED, "mean"),
        "symbolic": (([series, place], head), BOTH_R, BOTH, None),
        "symbolic dict": (({"series": series, "place": place}, head), NAMED_R, NAMED, None),
        "nested": (around(forecast), BOTH_R, BOTH, "mean"),
    }
    for name, (model, background, rows, key) in forms.items():
        values = explain(model, background, rows, output=key)
        assert isinstance(values, dict) == isinstance(rows, dict), name
        for found, right in zip(parts(values), wanted["mean"], strict=True):
            assert_close(found, right)


def test_which_output(forecast, wanted):
    twin = functional_twin(forecast)
    as_list = keras.Model(twin.inputs, [twin.output["mean"], {"more": (twin.output["spread"],)}])
    for output, right in ((0, wanted["mean"]), ((1, "more", 0), wanted["spread"])):
        for found, expected in zip(explain(as_list, BOTH_R, BOTH, output=output), right, strict=True):
            assert_close(found, expected)
    with pytest.raises(deepshap.InputError, match=r"'mean': a tensor.*'spread': a tensor.*output="):
        explain(forecast, BOTH_R, BOTH)


@pytest.mark.parametrize("which", [0, 1])
def test_which_of_stacked_outputs(which):
    parts = [lambda x: tf.tanh(x) * x[:, :1], tf.exp]
    X, R = (np.random.default_rng(seed).normal(size=(seed, 3)) for seed in (2, 5))
    stacked = deepshap.DeepExplainer(lambda x: tf.stack([part(x) for part in parts]), R, output=which, progress=False)
    assert_close(stacked.shap_values(X), deepshap.DeepExplainer(parts[which], R, progress=False).shap_values(X), 1e-12)


def test_one_explained_input_beside_one_that_is_given(forecast, wanted):
    """With a single reference, or references that share the place, the series' share is the whole difference."""
    explainer = deepshap.DeepExplainer(forecast, SERIES_R, output="mean", progress=False)
    explanation = explainer(SERIES, additional_forward_args=PLACE)
    for row in range(2):
        places = np.tile(PLACE[row], (3, 1))
        outputs, expected = (np.asarray(forecast([s, p])["mean"]) for s, p in ((SERIES, PLACE), (SERIES_R, places)))
        assert_close(explanation.values[row].sum((0, 1)), outputs[row] - expected.mean(0))
    beside = explain(lambda x: forecast.both(x, tf.tile(PLACE[:1], [tf.shape(x)[0], 1]))["mean"], SERIES_R, SERIES[:1])
    assert_close(explanation.values[:1], beside)


# ---------------------------------------------------------------------- saved models
@pytest.fixture(scope="module")
def folder(forecast, tmp_path_factory) -> Any:
    """The model, saved in every way."""
    path = tmp_path_factory.mktemp("saved")
    twin = functional_twin(forecast)
    twin.export(str(path / "exported"), verbose=False)
    specs = [tf.TensorSpec([None, *a.shape[1:]], tf.float64, name=n) for n, a in NAMED.items()]
    call = tf.function(lambda series, place: forecast.both(series, place), input_signature=specs)
    mean = tf.function(lambda series, place: {"mean": forecast.both(series, place)["mean"]}, input_signature=specs)
    module = tf.Module()
    module.forecast, module.variables_of = call, [w.value for w in forecast.weights]
    tf.saved_model.save(module, str(path / "module"), signatures={"both": call, "mean": mean})
    twin.save(path / "model.keras")
    return path


@pytest.mark.parametrize("output", mostly_wide(["mean", "spread"], {"mean"}))
def test_saved_models(forecast, wanted, folder, output):
    exported, module = (tf.saved_model.load(str(folder / name)) for name in ("exported", "module"))
    forms: dict[str, tuple[Any, Any, Any]] = {
        "a .keras file": (keras.saving.load_model(folder / "model.keras"), BOTH_R, BOTH),
        "what it serves": (exported, BOTH_R, BOTH),
        "its function": (exported.serve, BOTH_R, BOTH),
        "signature, dict": (exported.signatures["serving_default"], NAMED_R, NAMED),
        "signature of a module": (module.signatures["both"], NAMED_R, NAMED),
        "function of a module": (module.forecast, BOTH_R, BOTH),
        "concrete function": (module.forecast.get_concrete_function(), BOTH_R, BOTH),
    }
    for model, background, rows in forms.values():
        for found, right in zip(parts(explain(model, background, rows, output=output)), wanted[output], strict=True):
            assert_close(found, right)
    if output == "mean":  # a signature with a single result needs no output=
        values = explain(module.signatures["mean"], NAMED_R, NAMED)
        for found, right in zip(parts(values), wanted["mean"], strict=True):
            assert_close(found, right)


def test_a_saved_model_that_serves_nothing(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(deepshap.InputError, match="no function to call"):
        deepshap.DeepExplainer(tf.saved_model.load(str(tmp_path)), SERIES_R)


# ---------------------------------------------------------------------- inner layers and parts
def test_inner_layers_of_any_kind(forecast):
    """A layer's input is explained; the same layer alone, on what comes in, gives the same."""
    twin = functional_twin(forecast)
    merged = [np.concatenate([forecast.memory(s).numpy(), p], 1) for s, p in ((SERIES, PLACE), (SERIES_R, PLACE_R))]
    right = explain(forecast.mean, merged[1], merged[0])
    for model in (forecast, twin):
        explainer = deepshap.DeepExplainer((model, forecast.mean), BOTH_R, output="mean", progress=False)
        assert_close(explainer.shap_values(BOTH), right)
        assert_close(explainer(BOTH).data, merged[0])
    memory = deepshap.DeepExplainer((lambda x: forecast.mean(ops.pad(forecast.memory(x), [[0, 0], [0, 2]])), forecast.memory),
                                    SERIES_R, progress=False)  # fmt: skip
    found = memory.shap_values(SERIES)
    assert_close(
        found, explain(lambda x: forecast.mean(ops.pad(forecast.memory(x), [[0, 0], [0, 2]])), SERIES_R, SERIES)
    )


def test_part_of_a_model_by_symbolic_tensors(forecast):
    series, place = (keras.Input(shape, dtype="float64") for shape in ((STEPS, FEATURES), (PLACES,)))
    merge = L.Concatenate(dtype="float64")
    model = keras.Model([series, place], forecast.mean(merge([forecast.memory(series), place])))
    values = explain((model.inputs, merge.output), BOTH_R, BOTH)
    of_series, of_place = values
    assert_close(of_place, (PLACE - PLACE_R.mean(0))[:, :, None] * np.eye(2, 5, 3))  # passed on as it is
    assert_close(of_series[..., :3], explain(forecast.memory, SERIES_R, SERIES))
    assert not of_series[..., 3:].any()


# ---------------------------------------------------------------------- preprocessing
def learned(layer: Any, data: Any) -> Any:
    """A layer that has seen data."""
    layer.adapt(data)
    return layer


IDS, IDS_R = (np.random.default_rng(seed).integers(10, 16, (n, 4)) for seed, n in ((5, 2), (6, 3)))


def test_preprocessing_that_is_linear_equals_what_it_computes():
    """Scaling, shifting and cropping are linear: the multipliers are those of the model behind, scaled."""
    with precision("float64"):
        model = functional((STEPS, FEATURES), lambda x: L.Dense(2)(L.SimpleRNN(3, unroll=True)(x)))
        draw_weights(model)
        for layer in (learned(L.Normalization(), SERIES_R), L.Rescaling(0.3, offset=-2.0)):
            inputs = keras.Input((STEPS, FEATURES))
            whole = keras.Model(inputs, model(layer(inputs)))
            scaled = [layer(side).numpy() for side in (SERIES_R, SERIES)]
            assert_close(explain(whole, SERIES_R, SERIES), explain(model, *scaled))


def test_ids_through_tables_equal_the_ids_behind():
    """What a table makes of an id is attributed to the id."""
    with precision("float64"):
        reader = Sequential(
            [
                keras.Input((4,), dtype="int32"),
                L.Embedding(9, 3, mask_zero=True),
                L.GlobalAveragePooling1D(),
                L.Dense(2),
            ]
        )
        draw_weights(reader)
        table = L.IntegerLookup(vocabulary=list(range(10, 16)))
        inputs = keras.Input((4,), dtype="int64")
        whole = keras.Model(inputs, reader(table(inputs)))
    found = [np.asarray(table(side)) for side in (IDS_R, IDS)]
    assert_close(explain(whole, IDS_R, IDS), explain(reader, *found))


def test_categories_and_bins():
    with precision("float64"):
        numbers = np.random.default_rng(7).normal(size=(5, 4))
        bins = learned(L.Discretization(num_bins=4), np.random.default_rng(8).normal(size=(50, 4)))
        model = Sequential(
            [keras.Input((4,)), bins, L.CategoryEncoding(4, output_mode="multi_hot"), L.Dense(2, "tanh")]
        )
        draw_weights(model)
        values = explain(model, numbers[2:], numbers[:2])
        outputs, expected = model.predict(numbers[:2], verbose=0), model.predict(numbers[2:], verbose=0)
    assert_close(values.sum(1), outputs - expected.mean(0))


def test_text_is_refused_with_the_cure():
    layer = L.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3)
    model = Sequential([keras.Input((1,), dtype="string"), layer, L.Embedding(9, 2), L.SimpleRNN(2, unroll=True)])
    with pytest.raises(deepshap.InputError, match="numeric"):
        explain(model, np.array([["a b"]]), np.array([["b"]]))
    behind = Sequential(model.layers[1:])
    ids = [np.asarray(layer(np.array(text))) for text in ([["a b"]], [["b"]])]
    assert explain(behind, *ids).shape == (1, 3, 2)


# ---------------------------------------------------------------------- as users have them
def test_a_model_that_is_compiled_trained_saved_and_loaded(tmp_path):
    """In float32, with everything that fit and predict leave; the explanation keeps up with new weights."""
    data, targets = (
        np.random.default_rng(0).normal(size=(64, STEPS, FEATURES)),
        np.random.default_rng(1).normal(size=(64, 3)),
    )
    model = Sequential([keras.Input((STEPS, FEATURES)), L.LSTM(4), L.Dropout(0.5), L.Dense(3)])
    model.compile("adam", "mse", metrics=["mae"], jit_compile=False)
    explainer = deepshap.DeepExplainer(model, data[:10], progress=False)
    for _ in range(2):
        model.fit(data, targets, epochs=1, verbose=0)
        explanation = explainer(data[:4])
        outputs = model.predict(data[:4], verbose=0)
        assert_close(explanation.values.sum((1, 2)) + explanation.base_values, outputs, 1e-5)
        assert_close(explainer.expected_value, model.predict(data[:10], verbose=0).mean(0), 1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(explain(loaded, data[:10], data[:4]), explanation.values, 1e-6)
    values, indexes = explainer.shap_values(data[:4], ranked_outputs=2)
    order = np.argsort(-outputs, 1)[:, :2]
    assert np.array_equal(indexes, order)
    assert_close(values, np.take_along_axis(explanation.values, order[:, None, None], 3), 1e-5)


def test_little_memory_gives_the_same(capsys):
    model = Sequential([keras.Input((STEPS, FEATURES)), L.LSTM(4), L.Dense(2)])
    background, rows = (np.random.default_rng(seed).normal(size=(n, STEPS, FEATURES)) for seed, n in ((1, 40), (2, 7)))
    wanted = explain(model, background, rows)
    explainer = deepshap.DeepExplainer(model, background, progress=True, max_memory="100 kB")
    assert_close(explainer.shap_values(rows), wanted, 1e-5)
    shown = capsys.readouterr().err
    assert "280/280" in shown
    assert "pair" in shown


def test_explainers_are_saved_and_loaded(forecast, wanted, tmp_path):
    twin = functional_twin(forecast)
    explainer = deepshap.DeepExplainer(twin, BOTH_R, output="mean", progress=False)
    explainer.shap_values(BOTH)
    explainer.register_custom_handler("mean", double_dense)
    with (tmp_path / "explainer").open("wb") as file:
        explainer.save(file)
    with (tmp_path / "explainer").open("rb") as file:
        again = deepshap.DeepExplainer.load(file)
    assert list(again.custom_handlers) == ["mean"]
    with pytest.raises(deepshap.AdditivityError, match="double_dense of layer 'mean'"):
        again.shap_values(BOTH)
    again.unregister_custom_handler("mean")
    for found, right in zip(again.shap_values(BOTH), wanted["mean"], strict=True):
        assert_close(found, right)


def double_dense(call: Any) -> Any:
    """A handler that is wrong, to be seen."""
    return 2 * tf.matmul(call.multipliers[0], call.module.kernel, transpose_b=True)

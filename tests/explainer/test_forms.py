"""Forms of models that people have: one dict or list of inputs, named outputs; and models that are explained otherwise."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping

import keras
import numpy as np
import pandas as pd
import pytest
import shap
import tensorflow as tf
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import deepshap

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
Z = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
BOTH = {"series": X, "static": Z}
Heads = namedtuple("Heads", "value action")


class Net(nn.Module):
    """Two inputs, each an argument."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b = nn.Linear(3, 2), nn.Linear(2, 2)

    def both(self, series: Tensor, static: Tensor) -> Tensor:
        return self.a(series).tanh() * self.b(static).sigmoid()

    def forward(self, series: Tensor, static: Tensor) -> Tensor:
        return self.both(series, static)


class OfDict(Net):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.both(**batch)


class OfDictWithOptions(Net):
    def forward(self, batch, *, scale=1.0, **options):
        return scale * self.both(batch["series"], batch["static"])


class OfList(Net):
    def forward(self, inputs):
        return self.both(*inputs)


class OfListAndMore(Net):
    def forward(self, inputs: list[Tensor], scale: float = 1.0) -> Tensor:
        return scale * self.both(*inputs)


class OfMapping(Net):
    def forward(self, batch: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        return self.both(**batch) * lengths[:, None]


# ---------------------------------------------------------------------- inputs together
@pytest.mark.parametrize("model", [OfDict, OfDictWithOptions])
def test_one_dict_of_inputs(model):
    wanted = deepshap.DeepExplainer(Net(), BOTH)(BOTH)
    found = deepshap.DeepExplainer(model(), BOTH)(BOTH)
    for name in BOTH:
        np.testing.assert_array_equal(found[name].values, wanted[name].values)


@pytest.mark.parametrize("model", [OfList, OfListAndMore])
def test_one_list_of_inputs(model):
    wanted = deepshap.DeepExplainer(Net(), [X, Z]).shap_values([X, Z])
    found = deepshap.DeepExplainer(model(), [X, Z]).shap_values([X, Z])
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_row_arguments_beside_one_dict():
    lengths = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = deepshap.DeepExplainer(OfMapping(), BOTH)(BOTH, additional_forward_args=(lengths,))
    wanted = deepshap.DeepExplainer(Net(), BOTH)(BOTH)
    np.testing.assert_allclose(
        found["series"].values, wanted["series"].values * lengths.numpy()[:, None, None], atol=1e-6
    )


@pytest.mark.parametrize("together", ["dict", "list"])
def test_functions_of_tensorflow_that_take_inputs_together(together):
    x, z = X.numpy(), Z.numpy()
    given = {"x": tf.constant(x), "z": tf.constant(z)} if together == "dict" else [tf.constant(x), tf.constant(z)]

    def function(inputs):
        a, b = inputs.values() if together == "dict" else inputs
        return tf.tanh(a[:, :2]) * b

    found = deepshap.DeepExplainer(function, given).shap_values(given)
    wanted = deepshap.DeepExplainer(lambda a, b: a[:, :2].tanh() * b, [X, Z]).shap_values([X, Z])
    for ours, theirs in zip(found.values() if together == "dict" else found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


# ---------------------------------------------------------------------- outputs by name
def test_fields_of_named_tuples():
    net = nn.Linear(3, 2)
    found = deepshap.DeepExplainer(lambda x: Heads(net(x).tanh(), 2 * net(x)), X, output="action").shap_values(X)
    wanted = deepshap.DeepExplainer(lambda x: 2 * net(x), X).shap_values(X)
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(deepshap.InputError, match="'action': a tensor"):
        deepshap.DeepExplainer(lambda x: Heads(x, x), X, output="reward").shap_values(X)


def test_fields_of_what_torch_returns():
    largest = deepshap.DeepExplainer(lambda x: torch.max(x, 1), X, output="values")(X)
    np.testing.assert_allclose(largest.values.sum(1), largest.outputs - largest.base_values, atol=1e-6)
    with pytest.raises(deepshap.InputError, match="'indices': a tensor"):
        deepshap.DeepExplainer(lambda x: torch.max(x, 1), X, output="place").shap_values(X)


@pytest.mark.parametrize("by_key", [False, True])
def test_names_of_keras_outputs(by_key):
    keras.utils.set_random_seed(0)
    given = keras.Input((3,))
    u, v = keras.layers.Dense(2, name="u")(given), keras.layers.Dense(1, name="v", activation="tanh")(given)
    model = keras.Model(given, {"u": u, "v": v} if by_key else [u, v])
    found = deepshap.DeepExplainer(model, X.numpy(), output="v").shap_values(X.numpy())
    np.testing.assert_allclose(
        found, deepshap.DeepExplainer(keras.Model(given, v), X.numpy()).shap_values(X.numpy()), atol=1e-6
    )


# ---------------------------------------------------------------------- models of other libraries
def stand_in(name: str, package: str) -> object:
    return type(name, (), {"__module__": package, "fit": lambda self: self})()


def test_models_of_scikit_learn_are_for_others():
    model = LogisticRegression().fit(X.numpy(), [0, 1, 0, 1])
    for given in (model, model.predict_proba):
        with pytest.raises(
            deepshap.InputError, match=r"sklearn; deepshap explains PyTorch.*shap\.PermutationExplainer"
        ):
            deepshap.DeepExplainer(given, X.numpy())


def test_forecasters_have_an_interface_of_their_own():
    with pytest.raises(deepshap.InputError, match="explain_forecast"):
        deepshap.DeepExplainer(stand_in("NBEATSModel", "darts.models.forecasting.nbeats"), X)


def test_wrappers_of_networks():
    wrapper = stand_in("NeuralNetClassifier", "skorch.classifier")
    wrapper.module_ = nn.Linear(3, 2)
    with pytest.raises(deepshap.InputError, match="module_"):
        deepshap.DeepExplainer(wrapper, X)


@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.numpy()], ids=["tensor", "array"])
def test_a_scaler_in_the_explained_function(convert):
    scaler, net = StandardScaler().fit(X.numpy()), nn.Linear(3, 2)
    function = lambda x: net(torch.as_tensor(scaler.transform(convert(x))).float())  # noqa: E731
    with pytest.raises(deepshap.ControlFlowError, match=r"calls StandardScaler.*pass inverse_transform="):
        deepshap.DeepExplainer(function, X).shap_values(X)


def test_a_background_that_is_a_masker():
    with pytest.raises(deepshap.InputError, match=r"masker\.data"):
        deepshap.DeepExplainer(nn.Linear(3, 2), shap.maskers.Independent(X.numpy()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_torchscript_is_said_to_be_frozen():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 2), nn.Tanh()).eval())
    with pytest.raises(deepshap.InputError, match="frozen TorchScript"):
        deepshap.DeepExplainer(torch.jit.freeze(scripted), X)


# ---------------------------------------------------------------------- outputs and rows that are none
def test_a_state_for_a_fixed_number_of_rows():
    lstm = nn.LSTM(3, 2, batch_first=True)
    state = torch.zeros(1, 4, 2)
    with pytest.raises(deepshap.InputError, match="for a fixed number of rows"):
        deepshap.DeepExplainer(lambda x: lstm(x[:, None], (state, state))[0][:, 0], X).shap_values(X)


def test_complex_outputs():
    with pytest.raises(deepshap.InputError, match="absolute value"):
        deepshap.DeepExplainer(torch.fft.rfft, X).shap_values(X)


def test_masked_actions():
    with pytest.raises(deepshap.NonFiniteError, match="not allowed, explain the others"):
        deepshap.DeepExplainer(lambda x: torch.cat([x, torch.full_like(x, -torch.inf)], 1), X).shap_values(X)


def test_a_series_is_one_row():
    frame = pd.DataFrame(X.numpy(), columns=["a", "b", "c"])
    explainer = deepshap.DeepExplainer(nn.Linear(3, 2), frame)
    with pytest.raises(deepshap.InputError, match=r"frame\.iloc"):
        explainer.shap_values(frame.iloc[0])
    assert explainer.shap_values(frame.iloc[[0]]).shape == (1, 3, 2)

"""shap.DeepExplainer is ours while shap is patched, and shap's again afterwards."""

import importlib
import io
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import shap
import torch
from torch import nn

import deepshap
from deepshap.compat import shap as in_place

PLACES = [
    (shap, "DeepExplainer"),
    (shap.explainers, "DeepExplainer"),
    (shap.explainers, "Deep"),
]
ORIGINAL = shap.DeepExplainer


def classes():
    return {getattr(module, name) for module, name in PLACES}


@pytest.fixture(autouse=True)
def _restored():
    yield
    deepshap.unpatch_shap()
    assert classes() == {ORIGINAL}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.fixture
def rows():
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def background():
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(2))


# ---------------------------------------------------------------------- on and off
@pytest.mark.fast
def test_as_a_context():
    with deepshap.patch_shap():
        assert classes() == {in_place.DeepExplainer}
    assert classes() == {ORIGINAL}


def test_as_a_function():
    deepshap.patch_shap()
    assert classes() == {in_place.DeepExplainer}
    deepshap.unpatch_shap()
    assert classes() == {ORIGINAL}


def test_an_error_inside_restores_shap():
    with pytest.raises(KeyError), deepshap.patch_shap():
        raise KeyError
    assert classes() == {ORIGINAL}


def test_an_inner_context_leaves_the_outer_one_alone():
    with deepshap.patch_shap():
        with deepshap.patch_shap():
            assert classes() == {in_place.DeepExplainer}
        assert classes() == {in_place.DeepExplainer}
    assert classes() == {ORIGINAL}


def test_a_context_leaves_an_earlier_call_in_effect():
    deepshap.patch_shap()
    with deepshap.patch_shap():
        pass
    assert classes() == {in_place.DeepExplainer}


def test_twice_is_once():
    deepshap.patch_shap()
    deepshap.patch_shap()
    deepshap.unpatch_shap()
    assert classes() == {ORIGINAL}


def test_unpatching_what_is_not_patched_does_nothing():
    deepshap.unpatch_shap()
    with deepshap.patch_shap():
        deepshap.unpatch_shap()
        assert classes() == {ORIGINAL}


# ---------------------------------------------------------------------- the explainer
@pytest.mark.parametrize("name", ["shap.DeepExplainer", "shap.explainers.Deep", "shap.explainers.DeepExplainer"])
def test_the_same_numbers_by_every_door(name, model, background, rows):
    wanted = deepshap.DeepExplainer(model, background)
    with deepshap.patch_shap():
        explainer = eval(name)(model, background)
    assert isinstance(explainer, shap.Explainer)
    assert isinstance(explainer, deepshap.DeepExplainer)
    np.testing.assert_array_equal(explainer.shap_values(rows), wanted.shap_values(rows))
    np.testing.assert_array_equal(explainer(rows).values, wanted(rows).values)
    np.testing.assert_array_equal(explainer.expected_value, wanted.expected_value)


def test_ours_is_an_explainer_of_shap_without_any_patch(model, background):
    assert isinstance(deepshap.DeepExplainer(model, background), shap.Explainer)


def test_the_signature_of_shap(model, background, rows):
    with deepshap.patch_shap():
        explainer = shap.DeepExplainer(model, background, None, None)
        named = shap.DeepExplainer(model=model, data=background, session=None, learning_phase_flags=None)
    found = explainer.shap_values(rows, None, "max", True)
    np.testing.assert_array_equal(found, named.shap_values(X=rows, ranked_outputs=None, check_additivity=False))


def test_our_options(background, rows):
    net = nn.LSTM(4, 3, batch_first=True)
    with deepshap.patch_shap():
        explainer = shap.DeepExplainer(net, background[:, None], output=lambda found: found[0][:, -1], progress=False)
    assert explainer.shap_values(rows[:, None]).shape == (5, 1, 4, 3)


def test_the_results_of_shap_on_a_network_that_both_explain(background, rows):
    """Shapes, forms and numbers, where shap's rules are exact too."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    theirs = shap.DeepExplainer(net, background)
    with deepshap.patch_shap():
        ours = shap.DeepExplainer(net, background)
    found, wanted = ours.shap_values(rows), theirs.shap_values(rows)
    assert type(found) is type(wanted)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(ours.expected_value, theirs.expected_value, atol=1e-6)
    np.testing.assert_allclose(ours(rows).values, theirs(rows).values, atol=1e-5)
    for order in ("max", "min", "max_abs"):
        found, found_indexes = ours.shap_values(rows, 2, order)
        wanted, indexes = theirs.shap_values(rows, 2, order, check_additivity=False)  # its check forgets the ranks
        assert type(found_indexes) is type(indexes)
        assert torch.equal(found_indexes, indexes)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_list_of_inputs_as_shap_returns_it(background, rows):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.relu = nn.Linear(8, 2), nn.ReLU()

        def forward(self, x, y):
            return self.relu(self.linear(torch.cat([x, y], 1)))

    torch.manual_seed(4)
    net = Two()
    theirs = shap.DeepExplainer(net, [background, 2 * background])
    with deepshap.patch_shap():
        ours = shap.DeepExplainer(net, [background, 2 * background])
    found, wanted = ours.shap_values([rows, rows]), theirs.shap_values([rows, rows])
    assert type(found) is type(wanted) is list
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    for one, two in zip(ours([rows, rows]).values, found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_inner_layer_as_shap_explains_it(background, rows):
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    wanted = shap.DeepExplainer((net, net[2]), background).shap_values(rows)
    with deepshap.patch_shap():
        found = shap.DeepExplainer((net, net[2]), background).shap_values(rows)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_model_stays_in_training_mode(model, background, rows):
    """shap's puts it into evaluation mode for good."""
    model.train()
    with deepshap.patch_shap():
        shap.DeepExplainer(model, background).shap_values(rows)
    assert model.training


# ---------------------------------------------------------------------- pickles
def test_results_are_pickled(model, background, rows):
    with deepshap.patch_shap():
        explanation = shap.DeepExplainer(model, background)(rows)
        inside = pickle.loads(pickle.dumps(explanation))
    for found in (inside, pickle.loads(pickle.dumps(explanation))):
        assert isinstance(found, deepshap.Explanation)
        np.testing.assert_array_equal(found.values, explanation.values)
        np.testing.assert_array_equal(found[..., "Output 1"].base_values, explanation.base_values[:, 1])


@pytest.mark.parametrize("patched", [True, False])
def test_explainers_are_saved(patched, model, background, rows):
    if patched:
        deepshap.patch_shap()
    explainer = (shap if patched else deepshap).DeepExplainer(model, background)
    wanted = explainer.shap_values(rows)
    file = io.BytesIO()
    explainer.save(file)
    file.seek(0)
    found = type(explainer).load(file)
    assert type(found) is type(explainer)
    np.testing.assert_array_equal(found.shap_values(rows), wanted)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(explainer)).shap_values(rows), wanted)


# ---------------------------------------------------------------------- Keras
def test_a_keras_model_as_shap_explains_it(background, rows):
    """Numbers and forms, where shap's rules for TensorFlow are exact too."""
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, activation="relu"), keras.layers.Dense(3)])
    X, R = rows.numpy(), background.numpy()
    theirs = shap.DeepExplainer(net, R)
    with deepshap.patch_shap():
        ours = shap.DeepExplainer(net, R)
        symbolic = shap.DeepExplainer((net.inputs, net.outputs[0]), R)
    found, wanted = ours.shap_values(X), theirs.shap_values(X)
    assert type(found) is type(wanted)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(symbolic.shap_values(X), wanted, atol=1e-5)
    np.testing.assert_allclose(ours.expected_value, theirs.expected_value, atol=1e-6)
    found, found_indexes = ours.shap_values(X, 2)
    wanted, indexes = theirs.shap_values(X, 2, check_additivity=False)
    assert type(found_indexes) is type(indexes)
    np.testing.assert_array_equal(found_indexes, indexes)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_session_of_tensorflow_1_is_refused(model, background):
    with deepshap.patch_shap(), pytest.raises(deepshap.InputError, match=r"deepshap\.unpatch_shap\(\) first"):
        shap.DeepExplainer(model, background, object())


# ---------------------------------------------------------------------- without torch
WITHOUT_TORCH = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("torch is hidden", name=name)
sys.meta_path.insert(0, Hidden())
import shap, deepshap
original = shap.DeepExplainer
with deepshap.patch_shap():
    assert issubclass(shap.DeepExplainer, deepshap.DeepExplainer)
assert shap.DeepExplainer is original
deepshap.Explanation([[1.0, 2.0]], 3.0, [[4.0, 5.0]])
assert "torch" not in sys.modules
"""


def test_shap_is_patched_without_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------- what published notebooks do
@pytest.fixture
def keras_net():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, activation="relu"), keras.layers.Dense(3)])


def test_attributes_of_shaps_explainer(keras_net, model, background, rows):
    with deepshap.patch_shap():
        of_keras = shap.DeepExplainer(keras_net, background.numpy())
        of_torch = shap.DeepExplainer(model, background)
    assert isinstance(float(of_keras.expected_value[0].numpy()), float)
    np.testing.assert_allclose(of_keras.expected_value, keras_net(background.numpy()).numpy().mean(0), rtol=1e-5)
    assert isinstance(of_torch.expected_value, np.ndarray)
    assert of_keras.model is keras_net
    assert of_torch.explainer.model is model


def test_asking_for_an_expected_value_that_there_is_not(model, background):
    explainer = deepshap.DeepExplainer(model, lambda _: background)
    assert not hasattr(explainer, "expected_value")
    with pytest.raises(deepshap.InputError, match="the background is a function"):
        _ = explainer.expected_value


def test_weights_of_a_summarised_background_are_used(model, background, rows):
    data = np.repeat(background.numpy()[:3], [1, 2, 5], 0)
    summary = shap.kmeans(data, 3)
    assert len(set(summary.weights)) == 3
    found, wanted = deepshap.DeepExplainer(model, summary)(rows), deepshap.DeepExplainer(model, data)(rows)
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-6)
    np.testing.assert_allclose(found.base_values, wanted.base_values, atol=1e-6)
    np.testing.assert_allclose(deepshap.DeepExplainer(model, summary).expected_value, wanted.base_values[0], atol=1e-6)
    by_features = deepshap.DeepExplainer(model, summary)(rows, players="features")
    np.testing.assert_allclose(by_features.values, found.values, atol=1e-6)


@pytest.mark.parametrize("options", [{"effort": 4}, {"tolerance": 0.1}], ids=str)
def test_what_weighted_backgrounds_are_not_for(model, background, rows, options):
    explainer = deepshap.DeepExplainer(model, shap.kmeans(np.repeat(background.numpy()[:3], [1, 2, 5], 0), 3))
    with pytest.raises(deepshap.InputError, match="has weights"):
        explainer(rows, **options)
    with pytest.raises(deepshap.InputError, match="has weights"):
        explainer.reliability(rows)
    with pytest.raises(deepshap.InputError, match="count alike"):
        deepshap.faithfulness(explainer, rows)


# ---------------------------------------------------------------------- hypothetical contributions
def of_multipliers(mult, orig_inp, bg_data):
    """The standard combination of the genomics fork: it gives the attributions themselves."""
    return [m * (x - r) for m, x, r in zip(mult, orig_inp, bg_data, strict=True)]


def hypothetical(mult, orig_inp, bg_data):
    """What each letter would contribute in each place, as in the fork's documentation."""
    found = []
    for m, x, r in zip(mult, orig_inp, bg_data, strict=True):
        assert x.ndim == 2
        total = np.zeros_like(m)
        for letter in range(x.shape[-1]):
            other = np.zeros_like(x)
            other[:, letter] = 1.0
            total[:, :, letter] = ((other[None] - r) * m).sum(-1)
        found.append(total)
    return found


@pytest.mark.parametrize("function", [False, True], ids=["rows", "function"])
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_multipliers_are_combined_by_the_users_function(framework, function):
    random = np.random.default_rng(0)
    x, references = (np.eye(4, dtype="float32")[random.integers(0, 4, (rows, 6))] for rows in (3, 5))
    if framework == "torch":
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.ReLU(), nn.Linear(5, 2))
        given, background = torch.as_tensor(x), torch.as_tensor(references)
    else:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Flatten(), keras.layers.Dense(5, activation="relu"), keras.layers.Dense(2)]
        net, given, background = keras.Sequential([keras.Input((6, 4)), *layers]), x, references
    data = (lambda _: background) if function else background
    wanted = deepshap.DeepExplainer(net, data)(given)
    with deepshap.patch_shap():
        plain = shap.DeepExplainer(net, data, combine_mult_and_diffref=of_multipliers)
        explainer = shap.DeepExplainer(net, data, combine_mult_and_diffref=hypothetical)
    np.testing.assert_allclose(plain.shap_values(given), wanted.values, atol=1e-6)
    found = explainer.shap_values(given)
    # the letter that is there has the place's whole attribution
    np.testing.assert_allclose((found * x[..., None]).sum(2), wanted.values.sum(2), atol=1e-6)
    assert np.abs(found[x == 0]).max() > 1e-3
    np.testing.assert_allclose(explainer.shap_values(given, target=1), found[..., 1], atol=1e-6)
    own = deepshap.DeepExplainer(net, data, combine_mult_and_diffref=hypothetical)
    explanation = own(given)
    np.testing.assert_allclose(explanation.values, found, atol=1e-6)
    assert explanation.gap is None  # hypothetical contributions need not add up
    assert "combined by hypothetical" in explanation.method
    if not function:
        np.testing.assert_allclose(own.against(background[:2]).against(data).shap_values(given), found, atol=1e-6)


def test_hypothetical_contributions_are_those_of_captums_multipliers():
    """Captum's DeepLift knows this network: a multiplier times an exchanged letter is what that letter would contribute."""
    from captum.attr import DeepLift

    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 1)).eval()
    letters = torch.eye(4)[torch.randint(4, (5, 6))].transpose(1, 2)
    row, references = letters[:1], letters[1:]

    def of_bases(mult, orig_inp, bg_data):
        bases = np.eye(4)[:, None, :, None]
        return [np.stack([((base - bg) * m).sum(1) for base in bases], 1) for m, bg in zip(mult, bg_data, strict=True)]

    explainer = deepshap.DeepExplainer(net, references, combine_mult_and_diffref=of_bases)
    found = explainer.shap_values(row, target=0)[0]
    multipliers = DeepLift(net, multiply_by_inputs=False).attribute(row.expand(4, 4, 6), references).detach()
    for base in range(4):
        exchanged = torch.zeros(1, 4, 6)
        exchanged[:, base] = 1
        wanted = (multipliers * (exchanged - references)).sum(1).mean(0)
        np.testing.assert_allclose(found[base], wanted, atol=1e-6)


def test_what_cannot_be_combined(model, background, rows):
    with deepshap.patch_shap():
        few = shap.DeepExplainer(model, background, combine_mult_and_diffref=lambda m, x, r: [m[0][:1]])
        fine = shap.DeepExplainer(model, background, combine_mult_and_diffref=of_multipliers)
        with pytest.raises(deepshap.InputError, match="must be a function"):
            shap.DeepExplainer(model, background, combine_mult_and_diffref=3)
    with pytest.raises(deepshap.InputError, match="arrays of the multipliers' shapes"):
        few.shap_values(rows)
    with pytest.raises(deepshap.InputError, match="leave effort="):
        fine.shap_values(rows, effort=4)
    with pytest.raises(deepshap.InputError, match="inner layer"):
        deepshap.DeepExplainer((model, next(model.children())), background, combine_mult_and_diffref=of_multipliers)


# ---------------------------------------------------------------------- captum
def test_captums_classes_are_ours_within_the_block(model, background, rows):
    captum = importlib.import_module("captum.attr")
    theirs = captum.DeepLiftShap
    with deepshap.patch_captum():
        with deepshap.patch_captum():
            pass
        from captum.attr._core.layer.layer_deep_lift import LayerDeepLift

        assert LayerDeepLift is deepshap.captum.LayerDeepLift
        assert captum.DeepLiftShap is deepshap.captum.DeepLiftShap
        found = captum.DeepLiftShap(model).attribute(rows, background, target=1)
    assert captum.DeepLiftShap is theirs
    wanted = deepshap.DeepExplainer(model, background).shap_values(rows, target=1)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)
    deepshap.patch_captum()
    deepshap.unpatch_captum()
    assert captum.DeepLiftShap is theirs

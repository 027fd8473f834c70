"""What a decision is about: targets, against log-odds and differences that are computed the obvious way in float64."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import deepshap

NAMES = ["cat", "dog", "emu", "fox"]
ROWS, TRUE = 6, [0, 1, 2, 3, 0, 1]


class Speaker(nn.Module):
    """An LSTM with a head of one's choice."""

    def __init__(self, outputs=4, head=lambda z: z.softmax(-1)):
        super().__init__()
        self.lstm, self.last, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, outputs), head

    def logits(self, x):
        return 4 * self.last(self.lstm(x)[0][:, -1])

    def forward(self, x):
        return self.head(self.logits(x))


HEADS = {
    "softmax": lambda z: z.softmax(-1),
    "logits": lambda z: z,
    "a softmax that is divided": lambda z: z.exp() / z.exp().sum(-1, keepdim=True),
    "log-softmax": lambda z: nn.functional.log_softmax(z, -1),
}


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(3)
    return torch.randn(ROWS, 5, 3).double(), torch.randn(11, 5, 3).double()


def made(head="softmax", outputs=4):
    torch.manual_seed(4)
    return Speaker(outputs, HEADS.get(head, head)).double().eval()


def log_odds(z):
    """log(p / (1 - p)) of each class, from its definition, (rows, classes)."""
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return np.log(p) - np.log(np.stack([np.delete(p, k, 1).sum(1) for k in range(p.shape[1])], 1))


def columns(target, outputs):
    """Columns of what is added and of what is subtracted, by the words of a target."""
    ranks = np.argsort(-outputs, 1)
    known = {"predicted": ranks[:, 0], "runner-up": ranks[:, 1], "true": np.array(TRUE)}
    known |= {name: np.full(len(outputs), k) for k, name in enumerate(NAMES)} | {"2": np.full(len(outputs), 2)}
    return [known[term] for term in target.split(" - ")]


@pytest.mark.parametrize(
    "target", ["predicted", "true", "runner-up", "dog", "2", "predicted - runner-up", "true - predicted", "fox - cat"]
)
@pytest.mark.parametrize("head", ["softmax", "logits"])
def test_one_output_or_the_difference_of_two(data, head, target):
    x, background = data
    model = made(head)
    explainer = deepshap.DeepExplainer(model, background, output_names=NAMES)
    found = explainer(x, target=target, targets=TRUE)
    whole, outputs = explainer(x), model(x).detach().numpy()
    parts = [np.take_along_axis(whole.values, c[:, None, None, None], 3)[..., 0] for c in columns(target, outputs)]
    expected = parts[0] - (parts[1] if len(parts) > 1 else 0)
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    np.testing.assert_allclose(found.values.sum((1, 2)) + found.base_values, found.outputs, atol=1e-9)
    assert found.explained == target.replace("2", "emu")
    np.testing.assert_allclose(found.predictions, outputs)
    assert found.classes == NAMES
    np.testing.assert_array_equal(explainer.shap_values(x, target=target, targets=TRUE), found.values)


def test_an_index_and_names_of_true_classes(data):
    x, background = data
    explainer = deepshap.DeepExplainer(made(), background, output_names=NAMES)
    np.testing.assert_allclose(explainer(x, target=-1).values, explainer(x).values[..., 3], atol=1e-12)
    assert explainer(x, target=-1).explained == "fox"
    by_name = explainer(x, target="true", targets=np.array(NAMES)[TRUE])
    np.testing.assert_array_equal(by_name.values, explainer(x, target="true", targets=TRUE).values)
    assert by_name.targets.tolist() == np.array(NAMES)[TRUE].tolist()


@pytest.mark.parametrize("head", HEADS)
def test_log_odds_of_every_kind_of_head(data, head):
    x, background = data
    model = made(head)
    explainer = deepshap.DeepExplainer(model, background, output_names=NAMES)
    of_x, of_background = (log_odds(model.logits(each).detach().numpy()) for each in data)
    for target, column in (
        ("log-odds", of_x.argmax(1)),
        ("log-odds of true", np.array(TRUE)),
        ("log-odds of emu", [2] * ROWS),
    ):
        found = explainer(x, target=target, targets=TRUE)
        np.testing.assert_allclose(found.outputs, of_x[range(ROWS), column], atol=1e-9)
        np.testing.assert_allclose(found.base_values, of_background.mean(0)[column], atol=1e-9)
        np.testing.assert_allclose(found.values.sum((1, 2)), found.outputs - found.base_values, atol=1e-9)


@pytest.mark.parametrize("head", [torch.sigmoid, lambda z: torch.sigmoid(z).squeeze(-1), nn.Sigmoid()])
def test_logits_before_a_sigmoid_are_reached(data, head):
    x, background = data
    model = made(head, 1)
    explainer = deepshap.DeepExplainer(model, background)
    direct = deepshap.DeepExplainer(lambda x: model.logits(x)[:, 0], background)(x)
    found = explainer(x, target="log-odds")
    np.testing.assert_allclose(found.values, direct.values, atol=1e-12)
    np.testing.assert_allclose(found.outputs, direct.outputs, atol=1e-12)
    np.testing.assert_allclose(explainer(x, target="logits").values.reshape(direct.shape), direct.values, atol=1e-12)


@pytest.mark.parametrize("head", [torch.sigmoid, lambda z: torch.sigmoid(z)[:, 0], lambda z: z])
def test_log_odds_of_a_single_output_speak_for_the_answer(data, head):
    """Yes or no: the log-odds of no are those of yes with the sign turned."""
    x, background = data
    model = made(head, 1)
    model.last.bias.data -= model.logits(x).mean().detach() / 4
    explainer = deepshap.DeepExplainer(model, background, output_names=["ill"])
    direct = deepshap.DeepExplainer(lambda x: model.logits(x)[:, 0], background)(x)
    yes, true = direct.outputs > 0, np.array([1, 0, 1, 0, 0, 1])
    assert yes.any()
    assert not yes.all()
    for target, for_it in (
        ("log-odds", yes),
        ("log-odds of true", true == 1),
        ("log-odds of ill", True),
        ("log-odds of not ill", False),
    ):
        found, sign = explainer(x, target=target, targets=true), np.where(for_it, 1, -1)
        np.testing.assert_allclose(found.values, direct.values * np.reshape(sign, (-1, 1, 1)), atol=1e-12)
        np.testing.assert_allclose(found.outputs, direct.outputs * sign, atol=1e-12)
        np.testing.assert_allclose(found.base_values, direct.base_values * sign, atol=1e-12)
    words = np.where(true == 1, "ill", "not ill")
    named = explainer(x, target="log-odds of true", targets=words)
    np.testing.assert_allclose(named.outputs, direct.outputs * np.where(true, 1, -1), atol=1e-12)
    asked = deepshap.faithfulness(explainer, x, target="log-odds")
    np.testing.assert_allclose(asked.attributions, explainer(x, target="log-odds").values.sum(1), atol=1e-12)


@pytest.mark.parametrize("head", [torch.sigmoid, lambda z: z])
def test_the_predicted_output_of_a_single_one_is_that_output(data, head):
    x, background = data
    model = made(head, 1)
    named = deepshap.DeepExplainer(model, background, output_names=["ill"])
    found = named(x, target="predicted")
    assert (found.explained, found.output_names) == ("ill", "ill")
    np.testing.assert_allclose(found.outputs, model(x)[:, 0].detach().numpy(), atol=1e-12)
    assert deepshap.DeepExplainer(model, background)(x, target="predicted").explained == "output 0"
    with pytest.raises(deepshap.InputError, match="log-odds of true"):
        named(x, target="true", targets=TRUE)
    with pytest.raises(deepshap.InputError, match="neither 1 nor 0"):
        named(x, target="log-odds of true", targets=["well"] * ROWS)


def test_probabilities_that_were_picked_or_joined(data):
    """Each softmax has its own classes, whatever becomes of its results' shape."""
    x, background = data
    z = made("logits").logits(x).detach().numpy()
    one = deepshap.DeepExplainer(made(lambda z: z.softmax(-1)[:, 1]), background)
    np.testing.assert_allclose(one(x, target="log-odds of 1").outputs, log_odds(z)[:, 1], atol=1e-9)
    with pytest.raises(deepshap.InputError, match="out of reach"):
        one(x, target="logits")
    pairs = deepshap.DeepExplainer(made(lambda z: z.reshape(-1, 2, 2).softmax(-1).flatten(1)), background)
    expected = np.concatenate([log_odds(z[:, :2]), log_odds(z[:, 2:])], 1)
    for k in range(4):
        np.testing.assert_allclose(pairs(x, target=f"log-odds of {k}").outputs, expected[:, k], atol=1e-9)
    across = deepshap.DeepExplainer(made(lambda z: z.softmax(dim=1).unsqueeze(2).squeeze(2)), background)
    np.testing.assert_allclose(across(x, target="log-odds of 2").outputs, log_odds(z)[:, 2], atol=1e-9)


def test_an_index_in_a_tuple_is_named(data):
    x, background = data
    assert deepshap.DeepExplainer(made(), background, output_names=NAMES)(x, target=(2,)).explained == "emu"


def test_logits_of_all_classes(data):
    x, background = data
    model = made()
    found = deepshap.DeepExplainer(model, background, output_names=NAMES)(x, target="logits")
    direct = deepshap.DeepExplainer(model.logits, background)(x)
    np.testing.assert_allclose(found.values, direct.values, atol=1e-12)
    assert (found.explained, found.output_names) == ("logits", NAMES)


def test_a_function_of_the_output(data):
    x, background = data
    model = made()

    def entropy(p):
        return -(p * p.log()).sum(-1)

    found = deepshap.DeepExplainer(model, background)(x, target=entropy)
    np.testing.assert_allclose(found.outputs, entropy(model(x)).detach().numpy())
    np.testing.assert_allclose(found.values.sum((1, 2)), found.outputs - found.base_values, atol=1e-9)
    assert found.explained == "entropy"
    np.testing.assert_allclose(found.predictions, model(x).detach().numpy())


def test_row_arguments_and_several_inputs_go_along(data):
    x, background = data
    model = made("logits")
    rows = torch.arange(ROWS).double()
    explainer = deepshap.DeepExplainer(
        lambda a, b, shift: (model(a + b) + shift[:, None]).softmax(-1), [background, background]
    )
    found = explainer([x, x], target="log-odds", additional_forward_args=(rows,))
    expected = log_odds(model(2 * x).detach().numpy()).max(1)
    np.testing.assert_allclose(found.outputs, expected, atol=1e-9)
    total = sum(part.values.sum((1, 2)) for part in found)
    np.testing.assert_allclose(total + found.base_values, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("cow", "there is no output 'cow' among 4.*or 'predicted', 'runner-up', 'true'"),
        (7, "there is no output 7 among 4"),
        ("true", "needs targets="),
        ("a - b - c", "neither an output nor the difference of two"),
        (1.5, "must be a text, an index or a function"),
        ("logits", "out of reach"),
        ("predicted", "say which outputs"),
    ],
)
def test_what_cannot_be_a_target(data, target, message):
    x, background = data
    explainer = deepshap.DeepExplainer(made("logits"), background, output_names=NAMES)
    with pytest.raises(deepshap.InputError, match=message):
        explainer(x, target=target, ranked_outputs=1 if target == "predicted" else None)


@pytest.mark.parametrize("unknown", [-1, 4, "-1", "cow"])
def test_true_classes_that_there_are_not(data, unknown):
    x, background = data
    explainer = deepshap.DeepExplainer(made("logits"), background, output_names=NAMES)
    for target in ("true", "log-odds of true", "true - predicted"):
        with pytest.raises(deepshap.InputError, match=f"there is no (class|output) '?{unknown}"):
            explainer(x, target=target, targets=[*TRUE[:-1], unknown])


def test_an_output_that_may_be_either_is_not_guessed(data):
    x, background = data
    model = made(lambda z: 1 / (1 + (-z).exp()), 1)
    with pytest.raises(deepshap.InputError, match="out of reach"):
        deepshap.DeepExplainer(model, background)(x, target="log-odds")
    with pytest.raises(deepshap.InputError, match="no runner-up output to choose"):
        deepshap.DeepExplainer(model, background)(x, target="runner-up")


def test_names_that_look_like_targets_are_names(data):
    x, background = data
    names = ["a - b", "log-odds of cat", "c", "d"]
    explainer = deepshap.DeepExplainer(made(), background, output_names=names)
    np.testing.assert_allclose(explainer(x, target="a - b").values, explainer(x).values[..., 0], atol=1e-12)
    np.testing.assert_allclose(explainer(x, target="log-odds of cat").values, explainer(x).values[..., 1], atol=1e-12)


def test_its_words_are_shown(data):
    x, background = data
    found = deepshap.DeepExplainer(made(), background, output_names=NAMES)(x, target="predicted - runner-up")
    assert "explained: predicted - runner-up;" in repr(found)
    assert "predicted - runner-up" in found._repr_html_()
    assert set(found.to_dataframe().output) == {"predicted - runner-up"}
    assert found[0].over_time().explained == "predicted - runner-up"


# ---------------------------------------------------------------------- a row by itself
def same(x):
    return x * 1


LOGITS = torch.tensor([[0.2, 0.3, 0.5], [3.0, -1.0, 2.0], [0.1, 0.8, 0.1]], dtype=torch.float64)


def test_that_outputs_are_logits_is_told_by_the_background_and_by_no_row(tmp_path):
    """A row of logits that might be probabilities is one of logits, alone, among others and in every part of a data set."""
    explainer = deepshap.DeepExplainer(same, torch.randn(7, 3, generator=torch.Generator().manual_seed(1)).double())
    together, expected = explainer(LOGITS, target="log-odds"), log_odds(LOGITS.numpy()).max(1)
    np.testing.assert_allclose(together.outputs, expected, atol=1e-9)
    for row in range(3):
        alone = explainer(LOGITS[[row]], target="log-odds")
        np.testing.assert_allclose(alone.values[0], together.values[row], atol=1e-12)
    options = {"target": "log-odds", "rows_per_part": 1}
    deepshap.explain_dataset(explainer, LOGITS.numpy(), tmp_path, **options)
    np.testing.assert_allclose(deepshap.load(tmp_path)[:].values, together.values, atol=1e-12)


def test_that_outputs_are_probabilities_is_told_by_the_background():
    p, background = LOGITS[[0, 2]], torch.softmax(torch.eye(3, dtype=torch.float64), 1)
    explainer = deepshap.DeepExplainer(same, background)
    np.testing.assert_allclose(explainer(p, target="log-odds").outputs, np.log([0.5 / 0.5, 0.8 / 0.2]), atol=1e-9)
    for rows in ([0, 1, 2], [0, 1]):
        with pytest.raises(deepshap.InputError, match=r"row 1 of X.*no probabilities"):
            explainer(LOGITS[rows], target="log-odds")


@pytest.mark.parametrize(("background", "known"), [([[0.2], [0.9]], False), ([[0.2], [-3.0]], True)])
def test_a_single_output_is_a_logit_by_the_background(background, known):
    explainer = deepshap.DeepExplainer(same, torch.tensor(background))
    for rows in ([[0.14]], [[2.0]], [[0.14], [2.0]]):
        if known:
            np.testing.assert_allclose(explainer(torch.tensor(rows), target="log-odds").outputs, np.ravel(rows))
        else:
            with pytest.raises(deepshap.InputError, match=r"out of reach.*Nor does the background"):
                explainer(torch.tensor(rows), target="log-odds")


def test_the_background_is_seen_with_the_arguments_of_each_row():
    """With the factor 1 it has probabilities, with 3 it has none."""
    background, factor = torch.softmax(torch.eye(3, dtype=torch.float64), 1), torch.tensor([1.0, 3.0]).double()
    explainer = deepshap.DeepExplainer(lambda x, factor: x * factor[:, None], background)
    x, expected = LOGITS[[0, 0]], [np.log(0.5 / 0.5), log_odds(3 * LOGITS[:1].numpy()).max()]
    for row in range(2):
        found = explainer(x[[row]], target="log-odds", additional_forward_args=(factor[[row]],))
        np.testing.assert_allclose(found.outputs, expected[row], atol=1e-9)
    with pytest.raises(deepshap.InputError, match="Nor does the background"):
        explainer(x, target="log-odds", additional_forward_args=(factor,))
    with pytest.raises(deepshap.InputError, match="Nor does the background"):
        deepshap.DeepExplainer(same, lambda row: background)(x, target="log-odds")


# ---------------------------------------------------------------------- the explainer that the user holds
def first(outputs):
    return outputs[:, 0]


@pytest.fixture
def plain():
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Softmax(1)).double()
    return deepshap.DeepExplainer(model, torch.randn(50, 3).double()), torch.randn(4, 3).double()


@pytest.mark.parametrize("target", ["log-odds", "logits", first])
def test_handlers_come_and_go(plain, target):
    explainer, x = plain
    called = []

    def handler(call):
        called.append(call.name)
        return (
            call.multipliers[0]
            * (call.outputs[0] - call.reference_outputs[0])
            / (call.inputs[0] - call.reference_inputs[0])
        )

    expected = explainer.shap_values(x, target=target)
    explainer.register_custom_handler("1", handler)
    np.testing.assert_allclose(explainer.shap_values(x, target=target), expected, atol=1e-9)
    assert set(called) == {"1"}
    with explainer.frozen():
        explainer.unregister_custom_handler("1")
        called.clear()
        explainer.shap_values(x, target=target)
        assert not called
        explainer.register_custom_handler(nn.Tanh, handler)
        explainer.shap_values(x, target=target)
        assert called


@pytest.mark.parametrize("target", ["log-odds", first])
def test_settings_hold_for_targets(plain, target):
    explainer, x = plain
    explainer.shap_values(x, target=target)
    explainer.max_memory = 1
    with pytest.raises(deepshap.MemoryBudgetError):
        explainer.shap_values(x, target=target)


@pytest.mark.parametrize("head", ["softmax", "a softmax that is divided"])
def test_frozen_holds_for_targets(data, head):
    x, background = data
    model = made(head)
    rows = []
    model.lstm.register_forward_hook(lambda module, given, found: rows.append(len(given[0])))
    explainer = deepshap.DeepExplainer(model, background)
    with explainer.frozen():
        before = explainer.shap_values(x, target="log-odds")
        assert len(background) in rows
        rows.clear()
        np.testing.assert_array_equal(explainer.shap_values(x, target="log-odds"), before)
        assert len(background) not in rows
    with torch.no_grad():
        model.lstm.weight_hh_l0.mul_(1.5)
    assert np.abs(explainer.shap_values(x, target="log-odds") - before).max() > 1e-6
    assert len(background) in rows


def test_functions_are_not_kept_for_ever(plain):
    explainer, x = plain
    functions = []
    for k in range(12):
        function = lambda outputs, k=k: outputs[:, 0] * k  # noqa: E731
        functions.append(weakref.ref(function))
        explainer.shap_values(x[:1], target=function)
    del function
    gc.collect()
    assert sum(one() is not None for one in functions) < 6

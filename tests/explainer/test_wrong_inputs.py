"""What users get wrong first: errors of deepshap's, in words that help, wherever a model or an option does not fit."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import deepshap

torch.manual_seed(0)
LINEAR, R, X = nn.Linear(3, 2), torch.randn(6, 3), torch.randn(2, 3)


class Lstm(nn.Module):
    """Over (rows, steps, 3)."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Packed(Lstm):
    """Takes lengths."""

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


LSTM, SERIES = Lstm(), torch.randn(6, 5, 3)


def explained(model, background, x, call=None, **options):
    return deepshap.DeepExplainer(model, background, progress=False, **options)(x, **(call or {}))


def refused(match, *arguments, **options):
    with pytest.raises(deepshap.InputError, match=match):
        explained(*arguments, **options)


# ---------------------------------------------------------------------- shapes
def test_a_forgotten_axis_of_rows():
    refused(r"X has the shape of one row, \(3,\), .*give x\[None\]", LINEAR, R, R[0])
    refused(r"X has the shape of one row, \(5, 3\), .*give x\[None\]", LSTM, SERIES, SERIES[0].numpy())
    table = pd.DataFrame(SERIES[0].numpy(), columns=list("abc"))
    refused(r"X is a table with the shape of one row, \(5, 3\), .*give X\.to_numpy\(\)\[None\]\.$", LSTM, SERIES, table)
    refused(r"X is a Series, a single row: give a DataFrame of one row", LSTM, SERIES, table["a"])
    refused(r"the background has the shape of one row of X, .*give background\[None\]", LSTM, SERIES[0], SERIES)
    refused(r"input 1: X has the shape of one row", lambda a, b: a + b, [R, R], [X, X[0]])
    turned = SERIES.transpose(0, 1)
    refused(r"give x\[:, None\]", lambda x: LSTM(x.transpose(0, 1)), turned, turned[:, 0], batch_axis=1)
    image = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    refused(r"give x\[None\]", image, torch.randn(4, 1, 8, 8), torch.randn(1, 8, 8))


def test_nested_inputs():
    """The advice works."""

    def nested(inputs):
        return LINEAR(inputs["a"]["b"]) + LINEAR(inputs["c"][0])

    def flat(inputs):
        return nested({"a": {"b": inputs["b"]}, "c": [inputs["c"]]})

    advice = "must be a tensor or an array, not a dict. .* explain a function that takes one list or dict of tensors"
    refused(advice, nested, {"a": {"b": R}, "c": [R]}, {"a": {"b": X}, "c": [X]})
    found = explained(flat, {"b": R, "c": R}, {"b": X, "c": X})
    wanted = explained(LINEAR, R, X).values
    for name in ("b", "c"):
        np.testing.assert_allclose(found[name].values, wanted, rtol=1e-5, atol=1e-6)
    refused("not a list. Make it one array", LINEAR, R.tolist(), X)


def test_missing_features_and_steps_are_counted():
    refused("2 features where 3 are expected", LINEAR, R, X[:, :2])
    refused("2 features where 3 are expected", LSTM, SERIES, SERIES[..., :2])
    refused("they must have as many steps; pad sequences", LSTM, SERIES, SERIES[:, :4])
    refused(
        r"\(1, 8, 8\), rows of the background \(1, 8, 9\)\. They",
        lambda x: x,
        R.new_zeros(2, 1, 8, 9),
        R.new_zeros(2, 1, 8, 8),
    )
    frame = pd.DataFrame(R.numpy(), columns=list("abc"))
    refused("'c' is missing. X has 2, a, b; 3 are expected, a, b, c", LINEAR, frame, frame[["a", "b"]])
    more = frame.assign(d=1.0)
    refused(r"'d' is not among these. Choose the columns: X\[\[\"a\", \"b\", \"c\"\]\]\.", LINEAR, frame, more)
    long = more.assign(who=range(len(more)))
    explainer = deepshap.DeepExplainer(LSTM, deepshap.sequences(long, "who", features=list("abc")), progress=False)
    with pytest.raises(
        deepshap.InputError, match=r"Choose the columns: deepshap\.sequences\(\.\.\., features=\[\"a\", \"b\""
    ):
        explainer(deepshap.sequences(long, "who"))


def test_models_that_do_not_take_the_rows():
    refused(
        r"the model fails on rows of shape \(4,\) of float32: RuntimeError",
        LINEAR,
        torch.randn(5, 4),
        torch.randn(2, 4),
    )
    refused(
        r"the model fails on rows of shape .* of int64.*if they are no ids, give them as floating-point numbers\.$",
        LINEAR,
        torch.ones(5, 3).long(),
        torch.ones(2, 3).long(),
    )
    refused(r"The rows are bool: give them as the model's own", LINEAR, torch.ones(5, 3) > 0, torch.ones(2, 3) > 0)
    refused(r"The rows are float16: give them as the", LINEAR, torch.ones(5, 3).half(), torch.ones(2, 3).half())
    refused(r"in Linear, which takes 3 features\.$", LINEAR, torch.randn(5, 4), torch.randn(2, 4))
    refused(r"in LSTM, which takes 3 features\.$", LSTM, SERIES[..., :2], SERIES[..., :2])
    tokens = nn.Sequential(nn.Embedding(5, 3), nn.Flatten())
    refused("IndexError: index out of range", tokens, torch.ones(4, 4).long(), torch.full((1, 4), 9))
    with pytest.raises(deepshap.InputError, match="the model fails on rows"):
        _ = deepshap.DeepExplainer(LINEAR, torch.randn(5, 4)).expected_value


def test_forgotten_lengths_are_named():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(8, 3)), columns=list("abc"))
    table = deepshap.sequences(frame.assign(id=list("uuuuuvvv")), "id")
    refused(r"missing 1 required .*additional_forward_args=\(X\.lengths,\)", Packed(), table, table)
    refused(r"goes into additional_forward_args\.$", Packed(), SERIES, SERIES)
    found = explained(Packed(), table, table, {"additional_forward_args": (table.lengths,)})
    assert found.lengths.tolist() == [5, 3]


# ---------------------------------------------------------------------- what models return
@dataclasses.dataclass
class Result:
    logits: torch.Tensor
    loss: None = None


def test_the_only_tensor_is_explained():
    wanted = explained(LINEAR, R, X).values
    for wrap in (
        lambda z: {"logits": z},
        lambda z: OrderedDict(loss=None, logits=z, past_key_values=object()),
        lambda z: (None, [z]),
        Result,
        lambda z: SimpleNamespace(logits=z, hidden=None),
    ):
        np.testing.assert_array_equal(explained(lambda x, wrap=wrap: wrap(LINEAR(x)), R, X).values, wanted)
    refused("Say with output= which tensor", lambda x: {"logits": LINEAR(x), "hidden": x}, R, X)
    for both in (SimpleNamespace, Result):
        two = deepshap.DeepExplainer(lambda x, both=both: both(logits=LINEAR(x), loss=x), R, output="logits")
        np.testing.assert_array_equal(two(X).values, wanted)


@dataclasses.dataclass
class ModelOutput(OrderedDict):
    """As that of Hugging Face: a dict, and a dataclass."""

    logits: torch.Tensor
    hidden: torch.Tensor

    def __post_init__(self):
        self.update(vars(self))


def test_of_what_hugging_face_returns_the_logits_are_explained():
    wanted = explained(LINEAR, R, X).values
    np.testing.assert_array_equal(explained(lambda x: ModelOutput(LINEAR(x), x), R, X).values, wanted)
    refused("Say with output= which tensor", lambda x: ModelOutput(None, (x, x)), R, X)


@pytest.mark.parametrize(
    "change",
    [lambda z: z.detach().numpy(), lambda z: None, lambda z: z.tolist(), lambda z: 1.0, lambda z: (z for _ in "ab")],
)
def test_what_is_no_tensor_is_not_followed(change):
    refused("there is no tensor to be seen.*without .numpy()", lambda x: change(LINEAR(x)), R, X)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda z: z.to_sparse(), "nested, sparse"),
        (lambda z: torch.nested.as_nested_tensor(list(z)), "nested, sparse"),
        (lambda z: z.to("meta"), "on the meta device"),
        (lambda z: z[:, :0], "there is nothing in it to explain"),
    ],
)
def test_outputs_that_hold_no_numbers(change, match):
    refused(match, lambda x: change(LINEAR(x)), R, X)


# ---------------------------------------------------------------------- arrays
ODD = {
    "meta": R.to("meta"),
    "sparse": R.to_sparse(),
    "csr": R.to_sparse_csr(),
    "nested": torch.nested.as_nested_tensor(list(R)),
    "quantized": torch.quantize_per_tensor(R, 0.1, 0, torch.qint8),
    "mkldnn": R.to_mkldnn(),
    "masked": np.ma.masked_array(R.numpy(), R.numpy() > 0),
    "objects": R.numpy().astype(object),
    "dates": np.zeros((6, 3), "M8[D]"),
}


@pytest.mark.parametrize("kind", ODD)
def test_arrays_without_a_number_in_each_place(kind):
    refused("nested, sparse|meta|quantized|masked|numeric", LINEAR, ODD[kind], X)
    refused("nested, sparse|meta|quantized|masked|numeric", LINEAR, R, ODD[kind])
    shifted, options = (
        lambda x, shift: LINEAR(x) + shift.sum(-1, keepdim=True),
        {"additional_forward_args": (ODD[kind],)},
    )
    refused("nested, sparse|meta|quantized|masked|numeric", shifted, R, R, options)


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble, "f2"])
def test_other_orders_of_bytes(dtype):
    wanted = explained(LINEAR, R.numpy().astype("f2").astype("f4"), X.numpy().astype("f2").astype("f4"))
    found = explained(LINEAR, R.numpy().astype("f2").astype(dtype), X.numpy().astype("f2").astype(dtype))
    np.testing.assert_array_equal(found.values, wanted.values)
    ids = np.arange(6).reshape(2, 3)
    table = nn.Sequential(nn.Embedding(6, 2), nn.Flatten())
    swapped = explained(table, ids.astype(">i8"), ids.astype(">i4"))
    np.testing.assert_array_equal(swapped.values, explained(table, ids, ids).values)


# ---------------------------------------------------------------------- options
RAW_NONSENSE = [
    lambda a: a * np.nan,
    lambda a: a + 1j,
    lambda a: a.astype(object),
    lambda a: a[0].tolist(),
    lambda a: [[1.0], [1.0, 2.0]],
]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("max_memory", ["lots", "", -1, 0, float("nan"), float("inf"), [1], {}, True]),
        ("batch_axis", ["0", None, 1.0, [0.5], [], (0, 0), True, [None], {}, float("nan")]),
        ("max_rows", ["a", 0, -1, 1.5, float("nan"), [1], True]),
        ("feature_names", [5, "abc", b"abc", ["a"], list("aab"), list("abcd"), set("abc"), [["a"], ["b"], ["c"]]]),
        ("output_names", [5, ["a"], list("aa"), {"a": 1}, np.array(3), np.array("ab"), [b"a", b"b"], np.ones((2, 2))]),
        ("inverse_transform", [5, "x", {"a": 1}, [1], {}, [], [None], lambda a: None, lambda a: 1 / 0]),
        ("inverse_transform", [lambda a, made=made: made(a) for made in RAW_NONSENSE]),
    ],
)
def test_nonsense_in_options(option, values):
    for value in values:
        refused(option, LINEAR, R, X, **{option: value})


def test_nonsense_in_calls_and_backgrounds():
    for order in ("maxx", None, ["max"], {}, np.array(["max"])):
        refused("output_rank_order", LINEAR, R, X, {"ranked_outputs": 1, "output_rank_order": order})
    for background in ({}, [], (), {"x": {}}):
        refused("holds no inputs|must be a tensor", LINEAR, background, X)


def test_players_have_numbers():
    for players in (np.full(3, -1), np.array([0, -1, 1])):
        refused("players: -1 is below 0", LINEAR, R, X, {"players": players})


@pytest.mark.parametrize("function", [len, np.sin, str.upper, torch.Tensor, int, X, lambda x: x])
def test_rules_for_what_torch_does_not_announce(function):
    with pytest.raises(deepshap.InputError, match=r"torch does not announce|a rule is for a function"):
        deepshap.register_rule(function, "linear")


def test_names_are_counted_where_it_is_known():
    with pytest.raises(deepshap.InputError, match="feature_names holds 1 names for an axis of 3"):
        deepshap.DeepExplainer(LSTM, SERIES, feature_names=["a"])
    with pytest.raises(deepshap.InputError, match="feature_names holds 2 names for an axis of 3"):
        deepshap.DeepExplainer(lambda a, b: a + b, [R, R], feature_names=[list("abc"), list("ab")])
    explainer = deepshap.DeepExplainer(LINEAR, R, output_names=["a"])
    for call in (
        {},
        {"target": "predicted"},
        {"target": "logits"},
        {"ranked_outputs": 1},
        {"target": lambda z: z[:, 0]},
    ):
        with pytest.raises(deepshap.InputError, match="output_names holds 1 names for an axis of 2"):
            explainer(X, **call)


# ---------------------------------------------------------------------- where explainers are called, and rules
def test_inside_of_transforms():
    explainer = deepshap.DeepExplainer(LINEAR, R)
    for transform in (torch.vmap, torch.func.grad):
        with pytest.raises(deepshap.InputError, match=r"inside of torch\.vmap or torch\.func"):
            transform(lambda x: torch.as_tensor(explainer.shap_values(X)).sum() + x.sum())(X)


def test_sizes_that_depend_on_values():
    for count in (lambda z: torch.where(z > 0)[0].numel(), lambda z: len(torch.nonzero(z > 0, as_tuple=True)[0])):
        with pytest.raises(deepshap.DeepShapError):
            explained(lambda x, count=count: LINEAR(x) * count(LINEAR(x)), R, X)


class Square(torch.autograd.Function):
    """x * x."""

    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        (torch.zeros(1, 7), r"multiplier of shape \(1, 7\) for an input of shape"),
        ("a", "returned str; a multiplier is a dense tensor"),
        (1.0, "returned float"),
        (np.zeros(3), "returned ndarray"),
        ([torch.zeros(2), torch.zeros(2)], "2 multipliers for 1 inputs"),
    ],
)
def test_rules_that_return_something_else(returned, match):
    deepshap.register_rule(Square, lambda step, multiplier: returned)
    try:
        refused(match, lambda x: Square.apply(LINEAR(x)), R, X)
    finally:
        deepshap.unregister_rule(Square)


def test_a_model_on_the_meta_device_has_no_weights():
    with pytest.raises(deepshap.InputError, match="on the meta device and has no weights"):
        deepshap.DeepExplainer(torch.nn.Linear(4, 2, device="meta"), torch.zeros(3, 4))

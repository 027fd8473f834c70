"""Every error says what, where and what to do, and leaves the model as it was."""

from __future__ import annotations

import ctypes
import inspect
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import built, drawn, snapshot
from models import Chain, Inputs, Last, lstm
from torch import Tensor, nn

import deepshap
from deepshap import errors

X, R = drawn(3, 4, seed=1), drawn(5, 4, seed=2)


class Calling(nn.Module):
    """A model in training mode that computes what a test tells it to."""

    def __init__(self, function: Callable[[Tensor], Any]):
        super().__init__()
        self.linear, self.dropout, self.function = built(nn.Linear(4, 4)).train(), nn.Dropout(0.5), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.dropout(self.linear(x)))


def refused(
    error: type[Exception], function: Callable[[Tensor], Any], *words: str, rows: Any = X, **options: Any
) -> str:
    """Explain a model that must be refused; return the message. The model stays as it was."""
    model = Calling(function)
    before = snapshot(model)
    with pytest.raises(error) as caught:
        deepshap.DeepExplainer(model, R, progress=False, **options).shap_values(rows)
    assert snapshot(model) == before
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def read(background: Any, rows: Any, *words: str, model: Any = None, args: Any = None, **options: Any) -> None:
    """Hand over inputs that must be refused."""

    def explain() -> Any:
        explainer = deepshap.DeepExplainer(torch.tanh if model is None else model, background, **options)
        return explainer.shap_values(rows, additional_forward_args=args)

    with pytest.raises(deepshap.InputError) as caught:
        explain()
    for word in words:
        assert word in str(caught.value)


# ---------------------------------------------------------------------- the classes
def test_every_error_is_a_deepshap_error_and_what_python_calls_it():
    kinds = {
        errors.InputError: ValueError,
        errors.UnsupportedOperationError: NotImplementedError,
        errors.NonFiniteError: ArithmeticError,
        errors.AdditivityError: AssertionError,
        errors.MemoryBudgetError: MemoryError,
        errors.ControlFlowError: Exception,
        errors.BatchMixingError: Exception,
    }
    for error, kind in kinds.items():
        assert issubclass(error, deepshap.DeepShapError)
        assert issubclass(error, kind)
        assert getattr(deepshap, error.__name__) is error


# ---------------------------------------------------------------------- operations
def test_all_unsupported_operations_are_listed_with_their_places():
    def two_unknown(x: Tensor) -> Tensor:
        y = torch.special.bessel_j0(x)
        return y + torch.special.airy_ai(x).tanh()

    line = inspect.getsourcelines(two_unknown)[1]
    message = refused(deepshap.UnsupportedOperationError, two_unknown, "bessel_j0", "airy_ai", "register_rule")
    for offset in (1, 2):
        assert f"test_errors.py:{line + offset}" in message


def test_an_unknown_operation_on_constants_is_no_obstacle():
    def constants(x: Tensor) -> Tensor:
        return x * torch.special.bessel_j0(torch.arange(4.0, dtype=x.dtype))

    values = deepshap.DeepExplainer(constants, R, progress=False).shap_values(X)
    assert np.isfinite(values).all()


class Cube(torch.autograd.Function):
    """x^3 by NumPy, with a gradient that is wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = torch.empty_like(x)
        memory = (ctypes.c_double * x.numel()).from_address(x.data_ptr())
        np.ctypeslib.as_array((ctypes.c_double * x.numel()).from_address(result.data_ptr()))[:] = np.array(memory) ** 3
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


cube = Cube.apply


@pytest.mark.parametrize("function", [lambda x: Cube.apply(x), lambda x: cube(x) + 1], ids=["called", "taken before"])
def test_a_custom_function_that_leaves_torch_is_never_taken_for_linear(function):
    refused(deepshap.UnsupportedOperationError, function, "Cube", "register_rule", "test_errors.py")


@pytest.mark.parametrize(
    "function",
    [
        torch.rand_like,
        lambda x: nn.functional.dropout(x, 0.5, True),
        torch.bernoulli,
        lambda x: x + torch.randn(4),
        lambda x: x * float(np.random.rand()),
        lambda x: x * random.gauss(0, 1),
    ],
    ids=["rand_like", "dropout", "bernoulli", "randn", "a number of NumPy", "a number of Python"],
)
def test_randomness_is_refused(function):
    with pytest.raises((deepshap.UnsupportedOperationError, deepshap.BatchMixingError), match=r"random"):
        deepshap.DeepExplainer(lambda x: function(x.sigmoid()) + x, R, progress=False).shap_values(X)


DROPOUT, DRAWN, INFERENCE = "training=self.training", "moved out of the model", "give way to torch.no_grad"


def without_history(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.tanh()


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (lambda x: nn.functional.dropout(x), {DROPOUT}),
        (lambda x: nn.functional.alpha_dropout(x, training=True), {DROPOUT}),
        (lambda x: torch.bernoulli(x.sigmoid()), {DRAWN}),
        (without_history, {INFERENCE}),
        (lambda x: nn.functional.dropout(x) + torch.rand_like(x) * x, {DROPOUT}),  # numbers drawn are looked at after
    ],
    ids=["dropout", "alpha dropout", "bernoulli", "inference mode", "two"],
)
def test_advice_is_of_what_is_refused_alone(function, advice):
    with pytest.raises(deepshap.UnsupportedOperationError) as refusal:
        deepshap.DeepExplainer(function, R, progress=False).shap_values(X)
    assert {one for one in (DROPOUT, DRAWN, INFERENCE) if one in str(refusal.value)} == advice


def test_random_numbers_are_refused_where_they_meet_the_signal():
    def padded(x: Tensor) -> Tensor:
        return torch.cat([0.1 * torch.rand(len(x), 2).double(), torch.zeros(len(x), 2)], 1)

    for function in (
        lambda x: x + padded(x),
        lambda x: x * torch.zeros(4, dtype=x.dtype).uniform_().exp(),
        lambda x: x if torch.rand(()).item() < 2 else -x,
    ):
        refused(deepshap.UnsupportedOperationError, function, "(random)", "test_errors.py")
    drawn_only = deepshap.DeepExplainer(lambda x: (padded(x), x.tanh())[1], R, progress=False).shap_values(X)
    assert np.array_equal(drawn_only, deepshap.DeepExplainer(torch.tanh, R, progress=False).shap_values(X))


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (
            lambda x: nn.functional.grid_sample(x[:, None, None, :], x.view(-1, 1, 2, 2), align_corners=False),
            "grid_sample",
        ),
        (lambda x: torch.norm(x.view(-1, 2, 2), p="nuc", dim=(1, 2)), "norm"),
        (lambda x: torch.mode(x, 1)[0], "mode"),
        (lambda x: torch.linalg.svd(x.view(-1, 2, 2))[1], "svd"),
    ],
    ids=["grid_sample", "nuclear norm", "mode", "svd"],
)
def test_what_has_no_exact_rule_is_refused(function, word):
    refused(deepshap.UnsupportedOperationError, function, word)


def test_scripted_code_is_not_passed_over():
    scripted = torch.jit.script(torch.nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double())
    with pytest.raises(deepshap.UnsupportedOperationError, match=r"TorchScript"):
        deepshap.DeepExplainer(lambda x: scripted(x) * 2, R, progress=False).shap_values(X)


def test_a_rule_without_a_number_is_named():
    deepshap.register_rule(torch.special.bessel_j0, lambda step, multiplier: multiplier * torch.nan)
    try:
        with pytest.raises(deepshap.NonFiniteError, match=r"bessel_j0 at test_errors\.py:\d+ has a value"):
            deepshap.DeepExplainer(lambda x: torch.special.bessel_j0(x) * 2, R, progress=False).shap_values(X)
    finally:
        deepshap.unregister_rule(torch.special.bessel_j0)


# ---------------------------------------------------------------------- control flow
def branching(x: Tensor) -> Tensor:
    """Take another path for some rows than for others."""
    return torch.stack([row.tanh() if row.sum() > 0 else row * 2 for row in x])


@pytest.mark.parametrize(
    "function",
    [
        branching,
        lambda x: torch.stack([row * float(row.sum()) for row in x]),
        lambda x: torch.stack([row * row.sum().item() for row in x]),
        lambda x: x[:, : x.argmax(1)[0] + 1].sum(1),
        lambda x: torch.nn.functional.one_hot(x.argmax(1)) * x[:, : int(x.argmax(1).max()) + 1],
    ],
    ids=["if", "float", "item", "argmax as a bound", "one-hot of unknown size"],
)
def test_paths_that_differ_are_not_compared(function):
    with pytest.raises(deepshap.ControlFlowError, match=r"test_errors\.py"):
        deepshap.DeepExplainer(function, R, progress=False).shap_values(X)


def test_a_model_with_different_paths_is_left_alone():
    refused(deepshap.ControlFlowError, branching, "torch.where", "additional_forward_args")


# ---------------------------------------------------------------------- rows
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(0),
        lambda x: x.softmax(0),
        lambda x: x.cumsum(0),
        lambda x: x.mean(),
        lambda x: x.sum(0, keepdim=True),
        lambda x: x / x.norm(),
        lambda x: nn.functional.batch_norm(x, None, None, training=True),
    ],
    ids=["centred", "softmax over rows", "cumsum", "scalar", "one row", "norm of all", "batch statistics"],
)
def test_models_that_mix_rows_are_refused(function):
    refused(deepshap.BatchMixingError, function, "row")


def test_layers_that_keep_state_between_calls_are_refused():
    class Stateful(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Stateful.calls += 1
            return x * Stateful.calls

    named = r"mul at test_errors\.py:\d+ takes other numbers .* state that the model"
    with pytest.raises(deepshap.ControlFlowError, match=named):
        deepshap.DeepExplainer(Stateful(), R, progress=False).shap_values(X)


# ---------------------------------------------------------------------- values that are not finite
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite(value):
    rows, references = X.clone(), R.clone()
    rows[1, 2] = references[3, 0] = value
    read(R, rows, "X", "row 1")
    read(references, X, "background", "row 3")


def test_outputs_that_are_not_finite():
    refused(deepshap.NonFiniteError, lambda x: (x - 100).log(), "row 0")
    with pytest.raises(deepshap.NonFiniteError):
        deepshap.DeepExplainer(lambda x: 1 / (x > 0), R, progress=False).shap_values(X.abs())


# ---------------------------------------------------------------------- forms of inputs
def test_shapes_and_forms():
    read(R, X[:, :3], "(3,)", "(4,)")
    read(R, drawn(3, 4, 1), "(4, 1)")
    read(R, X[0, 0], "shape ()")
    read(R, [X, X], "list")
    read([R, R], X, "list of 2")
    read([R, R], [X], "list of 2")
    read([R, R[:2]], [X, X], "different numbers of rows")
    read({"a": R}, {"b": X}, "'a'", "'b'")
    read({"a": R}, X, "dict")
    read(R, {"a": X}, "dict")
    read([], [], "background")
    read(R[:0], X, "background", "empty")
    read(R, X[:0], "X", "empty")
    read(R, "text", "str")
    read(R, np.array([["a"] * 4]), "numeric")
    read(R, X.long(), "dtype")
    read(R, X + 1j, "complex")
    read([R, R], [X, X], "batch_axis", batch_axis=[0])
    read(R, X, "batch axis 2", batch_axis=2)
    read(R, X, "batch axis -3", batch_axis=-3)


def test_additional_arguments_have_one_entry_per_row():
    read(R, X, "additional_forward_args[0]", "2", "3", model=lambda x, n: x * n[:, None], args=(torch.ones(2),))


def test_no_base_value_without_the_arguments_it_depends_on():
    explainer = deepshap.DeepExplainer(lambda x, n: x * n[:, None], R, progress=False)
    with pytest.raises(deepshap.InputError, match=r"additional_forward_args"):
        _ = explainer.expected_value


def test_options():
    model = built(Inputs())
    read(R, X, "model", model=nn.Linear(4, 2).double().weight)
    read(R, X, "max_memory", max_memory=0)
    read(R, X, "max_memory", max_memory="much")
    for options, word in (((9,), "ranked_outputs"), ((0,), "ranked_outputs"), ((1, "best"), "output_rank_order")):
        with pytest.raises(deepshap.InputError, match=word):
            deepshap.DeepExplainer(torch.tanh, R, progress=False).shap_values(X, *options)
    series = [drawn(2, 4, 3), drawn(2, 4)]
    assert len(deepshap.DeepExplainer(model, series, progress=False).shap_values(series)) == 2


def test_a_model_that_is_not_callable():
    with pytest.raises(deepshap.InputError, match="int"):
        deepshap.DeepExplainer(3, R)


@pytest.mark.parametrize(
    ("function", "output", "words"),
    [
        (lambda x: (x, x), None, ["output=", "0: a tensor", "1: a tensor"]),
        (lambda x: {"a": x}, "b", ["'b'", "'a'"]),
        (lambda x: (x, x), 2, ["2"]),
        (lambda x: x, lambda y: "no tensor", ["str"]),
        (lambda x: x.argmax(1), None, ["torch.int64"]),
    ],
    ids=["tuple", "key", "index", "function", "integers"],
)
def test_outputs_that_cannot_be_explained(function, output, words):
    refused(deepshap.InputError, function, *words, output=output)


def test_a_tensor_has_no_named_parts(recwarn):
    """Torch would take the text for a list of indexes, with a warning."""
    refused(deepshap.InputError, lambda x: x, "output='logits'", "a tensor", output="logits")
    refused(deepshap.InputError, lambda x: {"a": x}, "output=('a', 'logits')", "a tensor", output=("a", "logits"))
    assert [str(w.message) for w in recwarn if issubclass(w.category, UserWarning)] == []


@pytest.mark.parametrize("names", [["a", "b", "a", "c"], ["a", "b"] * 2])
def test_names_that_come_again(names):
    for option in ("feature_names", "output_names"):
        read(R, X, f"{option}: 'a' is there twice", **{option: names})


def test_names_of_several_inputs_that_come_again():
    names = [list("abc"), list("wxyz")]
    series = [drawn(2, 4, 3), drawn(2, 4)]
    explainer = deepshap.DeepExplainer(built(Inputs()), series, progress=False, feature_names=names)
    assert [part.feature_names for _, part in explainer(series).items()] == names
    for given in ([list("aab"), None], [list("abc"), list("abcb")], [None, "abcd"]):
        with pytest.raises(deepshap.InputError, match=r"is there twice|a list of names for each of the inputs"):
            deepshap.DeepExplainer(built(Inputs()), series, progress=False, feature_names=given)
    same = [list("abc"), list("abcd")]  # of two inputs
    explainer = deepshap.DeepExplainer(built(Inputs()), series, progress=False, feature_names=same)
    assert [part.feature_names for _, part in explainer(series).items()] == same


def test_a_text_is_no_list_of_names():
    read(R, X, "feature_names is the text 'abcd', not a list of names", feature_names="abcd")
    series = {"a": drawn(2, 4, 3)}
    with pytest.raises(deepshap.InputError, match="feature_names is the text 'xyz'"):
        deepshap.DeepExplainer(lambda a: a.sum(1), series, progress=False, feature_names={"a": "xyz"})


def test_layers():
    model = built(nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    twice = Chain(model[0], model[1], model[0])
    for explained, layer, words in ((model, nn.Tanh(), "not called"), (twice, model[0], "more than once")):
        with pytest.raises(deepshap.InputError, match=words):
            deepshap.DeepExplainer((explained, layer), R, progress=False).shap_values(X)
    before = snapshot(twice)
    with pytest.raises(deepshap.InputError, match="more than once"):
        deepshap.DeepExplainer((twice, model[0]), R, progress=False).shap_values(X)
    assert snapshot(twice) == before


def test_a_way_around_the_explained_layer_is_found_out():
    linear = nn.Linear(4, 4).double()
    with pytest.raises(deepshap.AdditivityError, match="around"):
        deepshap.DeepExplainer((lambda x: linear(x).tanh() + x, linear), R, progress=False).shap_values(X)


# ---------------------------------------------------------------------- memory
def test_a_budget_for_less_than_a_pair():
    model = Chain(built(lstm()), Last())
    rows = drawn(2, 50, 3)
    with pytest.raises(deepshap.MemoryBudgetError, match="max_memory"):
        deepshap.DeepExplainer(model, rows, max_memory=100, progress=False).shap_values(rows)


# ---------------------------------------------------------------------- additivity
@pytest.fixture
def wrong_rule():
    """Say of a function that it is linear, which it is not."""
    deepshap.register_rule(torch.cosh, "linear")
    yield
    deepshap.unregister_rule(torch.cosh)


@pytest.mark.usefixtures("wrong_rule")
def test_sums_that_do_not_match():
    message = refused(deepshap.AdditivityError, torch.cosh, "row", "output", "tolerance")
    model, explained = Calling(torch.cosh), None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explainer = deepshap.DeepExplainer(model, R, progress=False)
        explained = explainer.shap_values(X, check_additivity=False)
    assert [w.category for w in caught] == [deepshap.AdditivityWarning]
    assert explained.shape == (3, 4, 4)
    sums = explained.sum(1)
    with torch.no_grad():
        wanted = model.eval()(X).numpy() - explainer.expected_value
    row, output = np.unravel_index(np.abs(sums - wanted).argmax(), wanted.shape)
    assert f"row {row}, output {output}" in str(caught[0].message)
    assert f"{wanted[row, output]:.6g}" in str(caught[0].message)
    assert "do not add up" in message


def test_the_operation_to_blame_is_named():
    deepshap.register_rule(torch.special.bessel_j0, lambda step, multiplier: multiplier * 0.5)
    try:
        message = refused(deepshap.AdditivityError, lambda x: torch.special.bessel_j0(x.tanh()))
    finally:
        deepshap.unregister_rule(torch.special.bessel_j0)
    assert "bessel_j0 at test_errors.py" in message

"""Values that reach the output by ways that torch does not follow: refused, never taken for constants.

All models compute ``x * sigmoid(x)``, and hide the sigmoid from autograd. With references of zeros the sums match
whatever the sigmoid's share is, so that no check of sums can find it.
"""

from __future__ import annotations

import copy
import ctypes
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import drawn
from torch import Tensor, nn

import deepshap

X, ZEROS = drawn(3, 4, seed=1), torch.zeros(1, 4, dtype=torch.float64)


class View(torch.autograd.Function):
    """The identity, with a gradient that is wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 7 * gradient


def through_data(x: Tensor) -> Tensor:
    hidden = torch.zeros_like(x)
    hidden.data.copy_(x.sigmoid())
    return hidden


def through_an_older_alias(x: Tensor) -> Tensor:
    hidden = torch.zeros_like(x)
    hidden.detach().copy_(x.sigmoid())
    return hidden


def through_a_storage(x: Tensor) -> Tensor:
    y = x.sigmoid()
    return torch.empty(0, dtype=x.dtype).set_(y.untyped_storage(), 0, y.shape, y.stride())


def through_a_tensor_that_is_set(x: Tensor) -> Tensor:
    return torch.empty(0, dtype=x.dtype).set_(x.sigmoid().detach())


def through_data_that_is_set(x: Tensor) -> Tensor:
    hidden = nn.Parameter(torch.zeros_like(x))
    hidden.data = x.sigmoid()
    return hidden


def through_bits(x: Tensor) -> Tensor:
    return x.sigmoid().view(torch.int64).view(x.dtype)


def through_masked_bits(x: Tensor) -> Tensor:
    return (x.sigmoid().view(torch.int64) & -2).view(x.dtype)


def through_a_thread(x: Tensor) -> Tensor:
    found = []

    def work() -> None:
        with torch.no_grad():
            found.append(x.sigmoid())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


def through_dlpack(x: Tensor) -> Tensor:
    return torch.from_dlpack(x.sigmoid().detach())


def through_a_capsule(x: Tensor) -> Tensor:
    return torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x.sigmoid()))


def through_nested_tensors(x: Tensor) -> Tensor:
    return torch.nested.to_padded_tensor(torch.nested.nested_tensor(list(x.sigmoid())), 0.0)


def through_an_address(x: Tensor) -> Tensor:
    y = x.sigmoid().contiguous()
    values = np.ctypeslib.as_array((ctypes.c_double * y.numel()).from_address(y.data_ptr())).copy()
    return torch.from_numpy(values).view_as(x)


def through_a_list_of_bytes(x: Tensor) -> Tensor:
    return torch.frombuffer(bytearray(x.sigmoid().untyped_storage().tolist()), dtype=x.dtype).view_as(x)


def through_memory_of_numpy(x: Tensor) -> Tensor:
    array = np.zeros(x.shape)
    torch.from_numpy(array).copy_(x.sigmoid())
    return torch.from_numpy(array)


def through_an_array(x: Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(x.sigmoid().detach()))


class Undifferentiable(torch.autograd.Function):
    """A sigmoid that says that it has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.sigmoid()
        ctx.mark_non_differentiable(y)
        return y


def through_a_scripted_view(x: Tensor) -> Tensor:
    return torch.jit.script(Viewing())(x)


class Viewing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()[:, :]


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x.sigmoid()[:, :]


HIDDEN: list[Callable[[Tensor], Tensor]] = [
    through_a_storage,
    through_a_tensor_that_is_set,
    through_data_that_is_set,
    through_bits,
    through_masked_bits,
    through_a_thread,
    through_dlpack,
    through_a_capsule,
    through_nested_tensors,
    through_an_address,
    through_a_list_of_bytes,
    through_memory_of_numpy,
    through_an_array,
    through_a_scripted_view,
    lambda x: pickle.loads(pickle.dumps(x.sigmoid().detach())),
]


@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda f: f.__name__)
def test_hidden_values_are_no_constants(hidden):
    """On several rows and on one, beside one reference and beside several."""
    for rows, references in ((X, ZEROS), (X[:1], ZEROS), (X, ZEROS.expand(5, 4).contiguous())):
        with pytest.raises((deepshap.UnsupportedOperationError, deepshap.ControlFlowError), match=r"test_activity\.py"):
            deepshap.DeepExplainer(lambda x: x * hidden(x), references, progress=False).shap_values(rows)


@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda f: f.__name__)
def test_hidden_values_are_found_where_the_first_rows_do_not_show_them(hidden):
    """The hidden value of the first rows equals the references'."""
    rows = torch.cat([ZEROS, X])
    with pytest.raises((deepshap.UnsupportedOperationError, deepshap.ControlFlowError), match=r"test_activity\.py"):
        deepshap.DeepExplainer(lambda x: x * hidden(x), ZEROS, progress=False).shap_values(rows)


@pytest.mark.parametrize(
    "copied",
    [lambda x: copy.deepcopy(x.sigmoid()), through_data, through_an_older_alias, lambda x: scripted(x)],
    ids=["copy", "data", "alias", "scripted function"],
)
def test_copies_are_followed(copied):
    models = (lambda x: x * copied(x), lambda x: x * x.sigmoid())
    found, wanted = (deepshap.DeepExplainer(f, ZEROS + 0.1, progress=False).shap_values(X) for f in models)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("of", ["rows", "columns"])
def test_constants_may_differ_with_the_number_of_rows(of):
    """They are the same as far as both sides have them, or the sides are run on the same number of rows."""

    def model(x: Tensor) -> Tensor:
        numbers = torch.arange(x.numel() if of == "columns" else len(x))
        return (x.flatten()[numbers] if of == "columns" else x[numbers.flip(0)].flip(0).flatten()).view_as(x).tanh()

    found = deepshap.DeepExplainer(model, ZEROS.expand(5, 4) + X.mean(0), progress=False).shap_values(X)
    wanted = deepshap.DeepExplainer(torch.tanh, ZEROS.expand(5, 4) + X.mean(0), progress=False).shap_values(X)
    assert np.allclose(found, wanted, rtol=0, atol=1e-12)


def test_memory_that_nobody_has_written_to_is_no_difference():
    """What is left in memory differs between the runs."""
    calls = []

    def empty(x: Tensor) -> Tensor:
        calls.append(1)
        left = torch.full((len(x), 4), float(len(calls)), dtype=x.dtype)
        del left
        return torch.empty(len(x), 4, dtype=x.dtype)

    def model(x: Tensor) -> Tensor:
        return torch.where(x > 9, empty(x), x).tanh()

    for references in (ZEROS, ZEROS.expand(5, 4)):
        found = deepshap.DeepExplainer(model, references, progress=False).shap_values(X)
        assert np.allclose(found.sum(1), torch.tanh(X).numpy())


def cached(x: Tensor) -> Tensor:
    """A cache that is overwritten after the signal was multiplied by it."""
    cache = torch.linspace(0.5, 2, 4, dtype=x.dtype)
    y = x * cache
    z = torch.where(cache > 1, x.tanh(), y)
    cache.zero_()
    return y.tanh() + z


def test_constants_that_are_overwritten_after_their_use():
    def plain(x: Tensor) -> Tensor:
        numbers = torch.linspace(0.5, 2, 4, dtype=x.dtype)
        return (x * numbers).tanh() + torch.where(numbers > 1, x.tanh(), x * numbers)

    found, wanted = (deepshap.DeepExplainer(f, ZEROS - 0.3, progress=False).shap_values(X) for f in (cached, plain))
    assert np.array_equal(found, wanted)


def test_masks_that_are_overwritten_after_their_use():
    """The rule of where reads the mask when multipliers come back."""

    def model(x: Tensor, reset: bool = True) -> Tensor:
        mask = torch.tensor([True, False, True, False])
        y = torch.where(mask, x.tanh(), 2 * x)
        return y + mask.logical_not_() if reset else y

    for references in (ZEROS, ZEROS.expand(5, 4) - 0.3):
        found, wanted = (
            deepshap.DeepExplainer(f, references, progress=False).shap_values(X)
            for f in (model, lambda x: model(x, False))
        )
        assert np.array_equal(found, wanted)


def test_constants_that_were_made_in_inference_mode():
    """Caches of models that are served: exact, and they stay as they are."""
    with torch.inference_mode():
        cache, table = torch.linspace(1, 2, 4, dtype=torch.float64), drawn(5, 4, seed=3)

    def model(of_cache: Tensor, of_table: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: F.layer_norm(x, (4,), of_cache) * of_cache[None].expand_as(x) + torch.relu(x) * of_table[:1]

    found, wanted = (
        deepshap.DeepExplainer(f, ZEROS + 0.1, progress=False).shap_values(X)
        for f in (model(cache, table), model(cache.clone(), table.clone()))
    )
    assert np.array_equal(found, wanted)
    assert cache.is_inference()


# ---------------------------------------------------------------------- numbers of places
W = torch.arange(1.0, 6.0).double()
COUNTS: dict[str, Callable[[Tensor], int]] = {
    "where": lambda r: torch.where(r > 0)[0].numel(),
    "shape": lambda r: (r > 0).nonzero().shape[0],
    "size": lambda r: (r > 0).nonzero().size(0),
    "len": lambda r: len((r > 0).nonzero()),
    "iteration": lambda r: len(list((r > 0).nonzero())),
    "unbind": lambda r: len((r > 0).nonzero().unbind()),
    "split": lambda r: len((r > 0).nonzero().split(1)),
    "bytes": lambda r: (r > 0).nonzero().nbytes,
    "storage": lambda r: (r > 0).nonzero().untyped_storage().nbytes(),
    "text": lambda r: int(str((r > 0).nonzero().shape)[len("torch.Size([")]),
    "argwhere": lambda r: torch.argwhere(r > 0).shape[0],
    "coordinates": lambda r: (r > 0).nonzero(as_tuple=True)[0].numel(),
    "unique": lambda r: r.unique().numel(),
    "consecutive": lambda r: (r > 0).unique_consecutive().shape[0],
    "bincount": lambda r: torch.bincount(r.long()).numel(),
    "what is taken": lambda r: W[(r > 0).nonzero()[:, 0]].numel(),
    "padded": lambda r: F.pad((r > 0).nonzero()[:, 0], (0, 1)).shape[0],
    "combinations": lambda r: torch.combinations((r > 0).nonzero()[:, 0]).shape[0],
}


@pytest.mark.parametrize("count", COUNTS)
def test_numbers_of_places_are_no_constants(count):
    """The references have none, and sums match whatever their number's share is."""
    x = torch.tensor([[1.0, 0, 2, 0, 3], [0, 0, 0, 4, 1]]).double()
    explainer = deepshap.DeepExplainer(
        lambda x: torch.stack([r.sum() * COUNTS[count](r) for r in x])[:, None], torch.zeros(1, 5).double()
    )
    with pytest.raises(deepshap.errors.ControlFlowError, match=r"test_activity\.py"):
        explainer.shap_values(x)

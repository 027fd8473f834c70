"""Steps of a recurrent output whose multipliers go past autograd: whichever way they are taken, and whatever becomes of them."""

from __future__ import annotations

import numba
import pytest
import torch
from helpers import assert_close, drawn, values
from planning import profile
from tiers import mostly_wide
from torch import Tensor, nn

import deepshap
from deepshap.engines.torch import autograd
from deepshap.engines.torch.recurrent import fused

X, R = drawn(3, 6, 3, seed=1), drawn(5, 6, 3, seed=2)


@pytest.fixture(params=["kernels", "written out"])
def runs(request, monkeypatch):
    """What the rule of the network got: the multipliers of all steps, or which ones."""
    found, original = [], fused.run

    def run(*arguments):
        found.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0)
    monkeypatch.setattr(numba.config, "DISABLE_JIT", int(request.param == "written out"))
    monkeypatch.setattr(fused, "run", run)
    return found if request.param == "kernels" else None


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    layer = nn.GRU(3, 4, num_layers=2, bidirectional=True, batch_first=True).double()
    turned = nn.GRU(3, 4, num_layers=2, bidirectional=True).double()
    turned.load_state_dict(layer.state_dict())
    return layer, turned, nn.Linear(8, 2).double()


def dense(layer, head, use):
    """The model with every step used whole: a product with 1 is seen by autograd as any other."""
    return lambda x: use(layer(x)[0] * 1.0, head)


def doubled_in_place(h: Tensor, head: nn.Module) -> Tensor:
    last = h[:, -1]
    last *= 2
    return head(last) + head(h[:, -1]) * head(h[:, 0])


def overwritten_afterwards(h: Tensor, head: nn.Module) -> Tensor:
    last = h[:, -1]
    early = head(last)
    h[:, -1] = 3 * h[:, 2]
    return early + head(last).tanh() + head(h[:, -1])


USES = {
    "the last": (lambda h, head: head(h[:, -1]), {5}),
    "the last, all axes": (lambda h, head: head(h[:, -1, :]), {5}),
    "by its number": (lambda h, head: head(h[:, 5]), {5}),
    "select": (lambda h, head: head(h.select(1, -1)), {5}),
    "select from behind": (lambda h, head: head(h.select(-2, -1)), {5}),
    "several": (lambda h, head: head(h[:, 0]) * head(h[:, -1]) + head(h[:, 2]), {0, 2, 5}),
    "one twice": (lambda h, head: head(h[:, -1]).tanh() + head(h[:, -1]), {5}),
    "every one": (lambda h, head: sum(head(h[:, t]).tanh() for t in range(6)), set(range(6))),
    "parts of one": (lambda h, head: head(torch.cat([h[:, -1, :4], h[:, 0, 4:]], 1)), {0, 5}),
    "one and all": (lambda h, head: head(h[:, -1]) + head(h.mean(1)), None),
    "a feature": (lambda h, head: head(h[:, -1]) * h[..., 2].sum(1, keepdim=True), None),
    "changed in place": (doubled_in_place, None),
    "overwritten afterwards": (overwritten_afterwards, None),
    "a part": (lambda h, head: head(h[:, -2:].sum(1)), None),
    "none": (lambda h, head: head(h[:, -1].detach() * 0 + h[:, -1]), {5}),
}


@pytest.mark.parametrize("rows", mostly_wide([(3, 5), (1, 5), (3, 1), (1, 1), (3, 3)], {(3, 5), (1, 1)}), ids=str)
@pytest.mark.parametrize("use", USES)
def test_the_same_as_whole(runs, networks, use, rows):
    layer, _, head = networks
    take, steps = USES[use]
    x, r = X[: rows[0]], R[: rows[1]]
    wanted = values(dense(layer, head, take), x, r)
    if runs is not None:
        runs.clear()
    assert_close(values(lambda x: take(layer(x)[0], head), x, r), wanted, 1e-12)
    if runs is not None:
        assert {None if at is None else frozenset(at) for at in runs} == {steps and frozenset(steps)}


def test_time_first(runs, networks):
    layer, turned, head = networks
    wanted = values(dense(layer, head, lambda h, head: head(h[:, -1]) * head(h[:, 1])), X, R)
    found = values(lambda x: head(turned(x.mT.permute(2, 0, 1))[0][-1]) * head(turned(x.transpose(0, 1))[0][1]), X, R)
    assert_close(found, wanted, 1e-12)


def test_states_alone(runs, networks):
    layer, _, head = networks
    wanted = values(lambda x: head(torch.cat([layer(x)[0][:, -1, :4], layer(x)[0][:, 0, 4:]], 1)), X, R)
    assert_close(values(lambda x: head(layer(x)[1][-2:].transpose(0, 1).flatten(1)), X, R), wanted, 1e-12)
    if runs is not None:
        assert runs[-1] == {}


def test_a_row_of_the_batch_is_no_step(networks):
    """With rows along the second axis the first one is time; here it is not, and the model mixes rows."""
    layer, _, head = networks
    with pytest.raises(deepshap.DeepShapError):
        values(lambda x: head(layer(x)[0][0]), X, R)


def test_a_backward_pass_that_failed_leaves_nothing(networks, monkeypatch):
    """Where torch cannot take several references at once, the first attempt has handed on multipliers already."""
    layer, _, head = networks
    wanted = values(lambda x: head(layer(x)[0][:, -1]), X, R)

    def fails(*arguments):
        raise RuntimeError("no rule for several")

    monkeypatch.setattr(autograd, "for_several", fails)
    assert_close(values(lambda x: head(layer(x)[0][:, -1]), X, R), wanted, 1e-12)
    wanted = values(dense(layer, head, USES["the last"][0]), X[:1], R[:1])
    assert_close(values(lambda x: head(layer(x)[0][:, -1]), X[:1], R[:1]), wanted, 1e-12)


def test_long_sequences_take_little_memory(networks):
    """Of which only the last step is used: no multipliers of pairs are needed for the others."""
    layer, _, head = networks
    engine = deepshap.DeepExplainer(lambda x: head(layer(x)[0][:, -1]), R, progress=False)
    whole = deepshap.DeepExplainer(dense(layer, head, USES["the last"][0]), R, progress=False)
    sizes = [profile(e, X).footprint.pair for e in (engine, whole)]
    assert sizes[1] - sizes[0] >= 2 * 6 * 8 * 8  # a float64 for every step and feature of the output


# ---------------------------------------------------------------------- of other values
def picked(v: Tensor, step: int) -> Tensor:
    """An entry, by a product with zeros and a one."""
    return (v * torch.eye(6, dtype=v.dtype)[step][:, None]).sum(1)


def written_to(v: Tensor, pick) -> Tensor:
    v = v.clone()
    early = pick(v, 0).tanh()
    v[:, 0] = 3 * pick(v, 2)
    return early + pick(v, 0) * pick(v, 1)


def scaled_in_place(v: Tensor, pick) -> Tensor:
    v = v * 1.0
    part = pick(v, 1)
    early = part.tanh()
    part *= 2
    return early + part


ENTRIES = {
    "one": lambda v, pick: pick(v, 5),
    "several": lambda v, pick: pick(v, 0) * pick(v, 5) + pick(v, 2),
    "one twice": lambda v, pick: pick(v, 3).tanh() + pick(v, 3),
    "some and all": lambda v, pick: pick(v, 0) * v.mean(1) + pick(v, 4),
    "all": lambda v, pick: sum(pick(v, t).tanh() * (t + 1) for t in range(6)),
    "of an entry": lambda v, pick: pick(v, 1)[:, 2:3] * pick(v, 1)[:, 0:1] + pick(v, 2)[:, :1],
    "several of several": lambda v, pick: torch.stack(
        [pick(v, t)[:, k] * (t + k) for t in (0, 2, 3) for k in range(3)], 1
    ).sin(),
    "several at once": lambda v, pick: (pick(v, 1)[:, 2] + pick(v, 1)[:, 0] * pick(v, 4)[:, 0])[:, None],
    "not all are used": lambda v, pick: [pick(v, t) for t in range(6)][3] + pick(v, 0),
    "written to": written_to,
    "scaled in place": scaled_in_place,
}


@pytest.mark.parametrize("rows", [(3, 5), (1, 5), (3, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("use", ENTRIES)
def test_entries_of_any_value(use, rows):
    x, r = X[: rows[0]], R[: rows[1]]

    def explained(pick, made):
        return values(lambda x: ENTRIES[use](made(x), pick).sum(1, keepdim=True) * torch.ones(2).double(), x, r)

    for made in (torch.tanh, lambda x: x, lambda x: torch.stack([x, x.sin()])[1]):
        found = explained(lambda v, step: v[:, step], made)
        assert_close(found, explained(picked, made), 1e-12)
        if use != "scaled in place":  # of what is made together nothing is written to
            assert_close(explained(lambda v, step: v.unbind(1)[step], made), found, 1e-12)


def test_the_work_for_entries_is_linear_in_their_number():
    """Autograd would make zeros of all steps for each."""

    def model(x):
        return sum(step.tanh() for step in x.unbind(1)).sum(1, keepdim=True)

    with torch.profiler.profile() as profile:
        values(model, X, R)
    assert sum(event.name == "aten::select_backward" for event in profile.events()) <= 6

"""Loops of recurrent cells: steps that hand their states on to the next one alone are taken back together, others one by one."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from helpers import assert_close, drawn, values
from tiers import mostly_wide
from torch import Tensor, nn

from deepshap.engines.torch import autograd, engine
from deepshap.engines.torch.recurrent import fused, single

STEPS = 5
X, R = drawn(3, STEPS, 4, seed=1), drawn(4, STEPS, 4, seed=2)
KINDS = ["LSTMCell", "GRUCell", "RNNCell"]


class Loop(nn.Module):
    """Runs a cell over the steps; ``use`` makes of its states, and of the loop itself, what is read out."""

    def __init__(self, kind, use):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.other, self.head = getattr(nn, kind)(4, 4), getattr(nn, kind)(4, 4), nn.Linear(4, 2)
        self.use = use
        self.double()

    def after(self, cell, steps, state=None) -> list:
        found = []
        for step in steps:
            state = cell(step, state)
            found.append(state)
        return found

    def forward(self, x):
        return self.head(self.use(self, x.unbind(1)))


def h_of(state) -> Tensor:
    return state[0] if isinstance(state, tuple) else state


def last_of(state) -> Tensor:
    return state[1] if isinstance(state, tuple) else state


def two_ends(loop, x):
    """A state from which two loops go on."""
    middle = loop.after(loop.cell, x[:2])[-1]
    return h_of(loop.after(loop.cell, x[2:], middle)[-1]) * h_of(loop.after(loop.cell, x[3:], middle)[-1])


def on_itself(loop, x):
    """What a step makes is the next one's input too."""
    state = loop.cell(x[0])
    for _ in range(3):
        state = loop.cell(h_of(state), state)
    return h_of(state)


def in_place(loop, x):
    """A state is changed after the next step took it, which keeps what it was."""
    states = loop.after(loop.cell, x[:3])
    last_of(states[1]).mul_(2)
    return h_of(states[2]) + last_of(states[1])


def reversed_states(loop, x):
    """Each state in the place of the other, where there are two."""
    state = loop.cell(x[0])
    for step in x[1:]:
        state = loop.cell(step, state[::-1] if isinstance(state, tuple) else state)
    return h_of(state)


# What is made of the loop, and how many steps are taken together.
USES = {
    "the last": (lambda loop, x: h_of(loop.after(loop.cell, x)[-1]), [5]),
    "the last, twice": (lambda loop, x: h_of(s := loop.after(loop.cell, x)[-1]).tanh() + last_of(s), [5]),
    "one on the way": (lambda loop, x: h_of((s := loop.after(loop.cell, x))[-1]) + last_of(s[2]), [2, 3]),
    "all": (lambda loop, x: torch.stack([h_of(s) for s in loop.after(loop.cell, x)], 1).tanh().sum(1), [1] * 5),
    "two cells": (lambda loop, x: h_of(loop.after(loop.other, x[2:], loop.after(loop.cell, x[:2])[-1])[-1]), [2, 3]),
    "deep": (
        lambda loop, x: h_of(loop.after(loop.other, [h_of(s) for s in loop.after(loop.cell, x)])[-1]),
        [1, 1, 1, 1, 1, 5],
    ),
    "the first input again": (lambda loop, x: h_of(loop.after(loop.cell, [x[0]] * 3)[-1]), [3]),
    "inputs that are constant": (
        lambda loop, x: h_of(loop.after(loop.cell, [torch.ones_like(x[0])] * 3, loop.cell(x[0]))[-1]),
        [4],
    ),
    "a state of another kind": (
        lambda loop, x: h_of(loop.after(loop.cell, x[1:], _states_like(loop.cell(x[0]), x[0].tanh()))[-1]),
        [4],
    ),
    "two ends": (two_ends, [2, 2, 3]),
    "on itself": (on_itself, [1, 1, 1, 1]),
    "in place": (in_place, [1, 2]),
}


def _states_like(state, value):
    return (value, value) if isinstance(state, tuple) else value


@pytest.fixture
def together(monkeypatch):
    """How many steps each rule took back together."""
    found, original = [], single.back_through

    def counted(level, traces, *rest):
        found.append(len(traces))
        return original(level, traces, *rest)

    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0)
    monkeypatch.setattr(single, "back_through", counted)
    return found


def written_out(model, x, r, monkeypatch):
    """Each step by itself, in torch."""
    with monkeypatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", 1)
        return values(model, x, r)


@pytest.mark.parametrize("rows", mostly_wide([(3, 4), (1, 4), (3, 1), (1, 1), (3, 3)], {(3, 4), (1, 4)}), ids=str)
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_step_by_step(kind, use, rows, together, monkeypatch):
    model = Loop(kind, USES[use][0])
    x, r = X[: rows[0]], R[: rows[1]]
    assert_close(values(model, x, r), written_out(model, x, r, monkeypatch), 1e-12)
    assert together


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_taken_together_where_nobody_else_takes_their_states(kind, use, together):
    model, (_, wanted) = Loop(kind, USES[use][0]), USES[use]
    values(model, X, R)
    assert sorted(together[-len(wanted) :]) == wanted


def test_states_that_change_places_are_no_chain(together, monkeypatch):
    model = Loop("LSTMCell", reversed_states)
    assert_close(values(model, X, R), written_out(model, X, R, monkeypatch), 1e-12)
    assert set(together) == {1}


def test_a_pass_for_each_reference(together, monkeypatch):
    model = Loop("LSTMCell", USES["one on the way"][0])
    wanted = written_out(model, X, R, monkeypatch)
    monkeypatch.setattr(engine, "multipliers_of_pass", lambda *_: 1)
    together.clear()
    assert_close(values(model, X, R), wanted, 1e-12)
    assert together == [2, 3] * (2 * len(R))  # an output and a reference at a time


def test_a_backward_pass_that_failed_leaves_nothing(together, monkeypatch):
    """It has found multipliers for steps that it did not reach."""
    model, original, calls = Loop("GRUCell", USES["the last"][0]), autograd._take_known_multipliers, []

    def fails(step):
        calls.append(step)
        if len(calls) == 2:
            raise RuntimeError("no rule for several")
        return original(step)

    wanted = written_out(model, X[:1], R[:1], monkeypatch)
    monkeypatch.setattr(autograd, "_take_known_multipliers", fails)
    assert_close(values(model, X[:1], R[:1]), wanted, 1e-12)
    assert len(calls) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_steps_took_is_overwritten(together, kind):
    """Inputs, states and weights, after each step: the rule sees what they were."""
    loop = Loop(kind, None)

    def model(x, changed):
        weights, state = [w.detach().clone() for w in loop.cell.parameters()], x.new_zeros(len(x), 4)
        state = (state, state.clone()) if kind == "LSTMCell" else state
        for step in x.unbind(1):
            given, before = torch.tanh(step), state
            state = getattr(torch, "rnn_tanh_cell" if kind == "RNNCell" else f"{kind[:-4].lower()}_cell")(
                given, state, *weights
            )
            changed([given, *weights, h_of(before)], weights)
        return loop.head(h_of(state))

    def in_place(values, _):
        for value in values:
            value.mul_(1.5)

    def out_of_place(_, weights):
        weights[:] = [1.5 * w for w in weights]

    wanted = values(lambda x: model(x, out_of_place), X, R)
    assert_close(values(lambda x: model(x, in_place), X, R), wanted, 1e-12)
    assert np.abs(wanted).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_what_steps_took_changes_without_a_call_of_torch(together, kind):
    """An input in memory of NumPy's between steps; and a parameter's tensor, which is put back after each run."""

    class Changing(Loop):
        def forward(self, x):
            weights, state = self.cell.weight_ih, None
            for step in x.unbind(1):
                state = self.cell(step, state)
                self.clock += 0.5
                state = self.cell(torch.from_numpy(self.clock).expand(len(x), 4), state)
                weights.data = weights.data * 0.9
            return self.head(h_of(state))

    loop = Changing(kind, None)
    loop.clock = np.zeros((1, 4))
    before = loop.cell.weight_ih.detach().clone()
    found = values(loop, X, R)
    assert torch.equal(loop.cell.weight_ih, before)
    assert not loop.clock.any()
    wanted = loop(X).detach().numpy()
    loop.cell.weight_ih.data, loop.clock = before, np.zeros((1, 4))
    expected = loop(R).detach().numpy().mean(0)
    assert_close(found.reshape(len(X), -1, 2).sum(1), wanted - expected, 1e-12)

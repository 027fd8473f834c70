"""The hook for single cells and its building blocks equal slow loops, add up for every unit, and agree with the engine."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from helpers import assert_close, drawn
from torch import Tensor, nn

import deepshap
from deepshap.compat import lstm as cells

SIZES = [(3, 2), (10, 20), (5, 50), (100, 10)]
every_size = pytest.mark.parametrize(("features", "units"), SIZES, ids=lambda size: str(size))


def built(cell: nn.Module) -> nn.Module:
    """Give a cell drawn weights, in float64."""
    cell = cell.double()
    with torch.no_grad():
        for seed, parameter in enumerate(cell.parameters()):
            parameter.copy_(0.5 * drawn(*parameter.shape, seed=seed + 100))
    return cell


def inputs(features: int, units: int, states: int, rows: int = 4, seed: int = 0) -> list[Tensor]:
    """Draw x and the states."""
    widths = [features, units, units][: 1 + states]
    return [drawn(rows, width, seed=seed + k) for k, width in enumerate(widths)]


class ManualLSTM(nn.Module):
    """One linear layer per gate and side; without ``output`` it has no output gate and returns c alone."""

    def __init__(self, features: int, units: int, bias: bool = True, output: bool = True):
        super().__init__()
        self.gates = "ifgo" if output else "ifg"
        for gate in self.gates:
            setattr(self, f"fc_i{gate}", nn.Linear(features, units, bias=bias))
            setattr(self, f"fc_h{gate}", nn.Linear(units, units, bias=bias))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
        z = {gate: getattr(self, f"fc_i{gate}")(x) + getattr(self, f"fc_h{gate}")(h) for gate in self.gates}
        c = z["f"].sigmoid() * c + z["i"].sigmoid() * z["g"].tanh()
        return (z["o"].sigmoid() * c.tanh(), c) if "o" in z else c


# ---------------------------------------------------------------------- slow loops
def share(w: Any, delta: Any, total: Any) -> Any:
    """Each element's share of one unit's denominator."""
    return np.array([w[i] * delta[i] / total for i in range(len(delta))])


def gate_by_loops(function: Any, sides: list[Any], weights: list[Any], bias: Any) -> tuple[Any, Any, Any, Any]:
    """Attribute a gate to x and h, unit by unit, in the literature's form; sides are (x, h) and (x_base, h_base)."""
    (x, h), (x_base, h_base) = sides
    W, U = weights
    z, z_base = (W @ s[0] + U @ s[1] + bias for s in sides)
    y, y_base = function(z), function(z_base)
    r_x, r_h = np.zeros_like(W), np.zeros_like(U)
    for j in range(len(z)):
        r_x[j] = share(W[j], x - x_base, z[j] - z_base[j]) * (y[j] - y_base[j])
        r_h[j] = share(U[j], h - h_base, z[j] - z_base[j]) * (y[j] - y_base[j])
    return r_x, r_h, y, y_base


def through(gate: tuple[Any, Any, Any, Any], relevance: Any) -> tuple[Any, Any]:
    """Hand a gate's relevance on to x and h, unit by unit."""
    r_x, r_h, y, y_base = gate
    ratio = (relevance / (y - y_base))[:, None]
    return ratio * r_x, ratio * r_h


def half(a: Any, b: Any, a_base: Any, b_base: Any) -> tuple[Any, Any]:
    """Attribute a product to its factors."""
    return (a - a_base) * (b + b_base) / 2, (b - b_base) * (a + a_base) / 2


def lstm_by_loops(cell: nn.LSTMCell, example: list[Any], base: list[Any], output: str) -> list[Any]:
    """Attribute the new state of one row to x, h and c, each (units, features)."""
    (x, h, c), (x_base, h_base, c_base) = example, base
    weights = [np.split(oracle.extended(w), 4) for w in (cell.weight_ih, cell.weight_hh)]
    biases = np.split(oracle.extended(cell.bias_ih) + oracle.extended(cell.bias_hh), 4)
    sides = [[x, h], [x_base, h_base]]
    functions = (oracle.sigmoid, oracle.sigmoid, np.tanh, oracle.sigmoid)
    i, f, g, o = (gate_by_loops(fn, sides, [w[k] for w in weights], biases[k]) for k, fn in enumerate(functions))
    new, new_base = f[2] * c + i[2] * g[2], f[3] * c_base + i[3] * g[3]
    r_f, r_c = half(f[2], c, f[3], c_base)
    r_i, r_g = half(i[2], g[2], i[3], g[3])
    parts = [through(gate, r) for gate, r in ((f, r_f), (i, r_i), (g, r_g))]
    r_x, r_h, r_c = sum(p[0] for p in parts), sum(p[1] for p in parts), np.diag(r_c)
    if output == "h":
        r_o, r_t = half(o[2], np.tanh(new), o[3], np.tanh(new_base))
        from_o, ratio = through(o, r_o), (r_t / (new - new_base))[:, None]
        r_x, r_h, r_c = ratio * r_x + from_o[0], ratio * r_h + from_o[1], ratio * r_c
    return [r_x, r_h, r_c]


def gru_by_loops(cell: nn.GRUCell, example: list[Any], base: list[Any]) -> list[Any]:
    """Attribute the new state of one row to x and h."""
    (x, h), (x_base, h_base) = example, base
    W, U, b, b_h = (
        np.split(oracle.extended(w), 3) for w in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    )
    sides = [[x, h], [x_base, h_base]]
    r, z = (gate_by_loops(oracle.sigmoid, sides, [W[k], U[k]], b[k] + b_h[k]) for k in (0, 1))
    q, q_base = (U[2] @ s + b_h[2] for s in (h, h_base))
    before, before_base = (
        W[2] @ s[0] + b[2] + gate * side for s, gate, side in zip(sides, r[2:], (q, q_base), strict=True)
    )
    n, n_base = np.tanh(before), np.tanh(before_base)
    r_kept, r_h = half(1 - z[2], n, 1 - z[3], n_base), half(z[2], h, z[3], h_base)
    slope = (r_kept[1] / (before - before_base))[:, None]
    r_reset, r_q = half(r[2], q, r[3], q_base)
    from_z, from_r = through(z, r_kept[0] + r_h[0]), through(r, r_reset)
    of_x = slope * W[2] * (x - x_base) + from_z[0] + slope * from_r[0]
    of_q = (r_q / (q - q_base))[:, None] * U[2] * (h - h_base)
    return [of_x, from_z[1] + slope * (from_r[1] + of_q) + np.diag(r_h[1])]


def rnn_by_loops(cell: nn.RNNCell, example: list[Any], base: list[Any]) -> list[Any]:
    """Attribute the new state of one row to x and h."""
    function = {"tanh": np.tanh, "relu": oracle.relu}[cell.nonlinearity]
    weights = [oracle.extended(w) for w in (cell.weight_ih, cell.weight_hh)]
    bias = oracle.extended(cell.bias_ih) + oracle.extended(cell.bias_hh)
    return list(gate_by_loops(function, [example, base], weights, bias)[:2])


def check(values: dict[str, Tensor], by_loops: Any, example: list[Tensor], base: list[Tensor]) -> None:
    """Compare with loops that map one row's sides to attributions."""
    for row in range(len(example[0])):
        wanted = by_loops([oracle.extended(v[row]) for v in example], [oracle.extended(v[row]) for v in base])
        for found, w in zip(values.values(), wanted, strict=True):
            assert_close(found[row].numpy(), w)


def check_sums(hook: Any, new: Tensor, values: dict[str, Tensor], tolerance: float = 1e-13) -> None:
    """The attributions of every unit sum to its change."""
    total = sum(v.sum(-1) for v in values.values())
    assert total.shape == new.shape
    assert float((total - (new - hook.base_output)).abs().max()) <= tolerance * max(1, float(new.abs().max()))


# ---------------------------------------------------------------------- the building blocks
@every_size
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_gate_gives_each_unit_its_own_denominator(activation, features, units):
    W, U, b = drawn(units, features, seed=1), drawn(units, units, seed=2), drawn(units, seed=3)
    (x, h), (x_base, h_base) = inputs(features, units, 1, seed=4), inputs(features, units, 1, seed=6)
    found = deepshap.gate_attribution(x, h, x_base, h_base, W, U, b, activation=activation)
    function = {"sigmoid": oracle.sigmoid, "tanh": np.tanh}[activation]
    for row in range(len(x)):
        sides = [[oracle.extended(v[row]) for v in side] for side in ((x, h), (x_base, h_base))]
        wanted = gate_by_loops(function, sides, [oracle.extended(W), oracle.extended(U)], oracle.extended(b))
        for part, w in zip(found, wanted, strict=True):
            assert_close(part[row].numpy(), w)
    assert_close((found.r_x.sum(-1) + found.r_h.sum(-1)).numpy(), (found.output - found.base_output).numpy())
    single = deepshap.gate_attribution(x[0], h[0], x_base[0], h_base[0], W, U, b, activation=activation)
    assert_close(single.r_x.numpy(), found.r_x[0].numpy())


def test_a_denominator_summed_over_the_units_does_not_add_up():
    W, U = drawn(4, 3, seed=1), drawn(4, 4, seed=2)
    (x, h), (x_base, h_base) = inputs(3, 4, 1, rows=1, seed=4), inputs(3, 4, 1, rows=1, seed=6)
    gate = deepshap.gate_attribution(x, h, x_base, h_base, W, U)
    z = (x - x_base) @ W.T + (h - h_base) @ U.T
    change = gate.output - gate.base_output
    summed = (W * (x - x_base)).sum(1) + (U * (h - h_base)).sum(1)
    assert_close((summed / z * change).numpy(), change.numpy())
    assert float((summed / z.sum() * change - change).abs().max()) > 0.1 * float(change.abs().max())


@pytest.mark.parametrize("shapes", [((), ()), ((5,), (5,)), ((2, 5), (5,)), ((3, 1, 4), (2, 1))])
def test_a_product_gives_its_factors_their_shapley_values(shapes):
    a, a_base = (drawn(*shapes[0], seed=seed) for seed in (1, 2))
    b, b_base = (drawn(*shapes[1], seed=seed) for seed in (3, 4))
    r_a, r_b = deepshap.product_attribution(a, b, a_base, b_base)
    wanted = oracle.two_players(np.multiply, *(oracle.extended(v) for v in (a, b, a_base, b_base)))
    assert_close(r_a.numpy(), wanted[0])
    assert_close(r_b.numpy(), wanted[1])
    assert_close((r_a + r_b).numpy(), (a * b - a_base * b_base).numpy())


def test_a_product_of_numbers():
    assert [float(r) for r in deepshap.product_attribution(2, 3, 1, 0)] == [1.5, 4.5]


# ---------------------------------------------------------------------- cells
@every_size
@pytest.mark.parametrize("output", ["c", "h"])
def test_an_lstm_cell_equals_the_loops(output, features, units):
    cell = built(nn.LSTMCell(features, units))
    example, base = inputs(features, units, 2, seed=1), inputs(features, units, 2, seed=5)
    hook = deepshap.register_lstm_shap_hook(cell, *base, output=output)
    new, values = hook(*example)
    assert_close(new.numpy(), cell(example[0], tuple(example[1:]))["hc".index(output)].detach().numpy())
    check(values, lambda a, b: lstm_by_loops(cell, a, b, output), example, base)
    check_sums(hook, new, values)


@every_size
@pytest.mark.parametrize(
    ("cell", "options", "by_loops"),
    [
        (nn.GRUCell, {}, gru_by_loops),
        (nn.RNNCell, {}, rnn_by_loops),
        (nn.RNNCell, {"nonlinearity": "relu"}, rnn_by_loops),
    ],
    ids=["GRU", "RNN tanh", "RNN relu"],
)
def test_gru_and_rnn_cells_equal_the_loops(cell, options, by_loops, features, units):
    cell = built(cell(features, units, **options))
    example, base = inputs(features, units, 1, seed=1), inputs(features, units, 1, seed=5)
    hook = deepshap.register_lstm_shap_hook(cell, *base)
    new, values = hook(*example)
    assert list(values) == ["shap_x", "shap_h"]
    assert_close(new.numpy(), cell(*example).detach().numpy())
    check(values, lambda a, b: by_loops(cell, a, b), example, base)
    check_sums(hook, new, values)


@every_size
def test_the_shapes_are_those_promised(features, units):
    hook = deepshap.register_lstm_shap_hook(nn.LSTMCell(features, units), 0.0, 0.0, 0.0)
    values = hook.calculate_shap(*(v.float() for v in inputs(features, units, 2)))
    shapes = {name: tuple(v.shape) for name, v in values.items()}
    assert shapes == {"shap_x": (4, units, features), "shap_h": (4, units, units), "shap_c": (4, units, units)}
    off_diagonal = ~torch.eye(units, dtype=torch.bool)
    assert not values["shap_c"][:, off_diagonal].any()


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)], ids=str)
@every_size
def test_every_unit_adds_up(kind, dtype, tolerance, features, units):
    cell = kind(features, units, bias=False).to(dtype)
    states = 2 if kind is nn.LSTMCell else 1
    example, base = ([3 * v for v in inputs(features, units, states, seed=seed)] for seed in (1, 9))
    nearby = [b + 1e-6 * e for b, e in zip(base, example, strict=True)]
    for output in ("c", "h")[2 - states :]:
        hook = deepshap.LSTMShapBackwardHook(cell, *base, output=output)
        for rows in (example, nearby, base):
            new, values = hook(*rows)
            assert new.dtype == dtype
            check_sums(hook, new, values, tolerance)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@every_size
def test_the_hook_agrees_with_the_explainer(kind, features, units):
    cell = built(kind(features, units))
    states = 2 if kind is nn.LSTMCell else 1
    example, base = inputs(features, units, states, seed=1), inputs(features, units, states, rows=1, seed=5)

    def model(x: Tensor, *state: Tensor) -> Tensor:
        return cell(x, state)[1] if states == 2 else cell(x, *state)

    wanted = deepshap.DeepExplainer(model, base, progress=False).shap_values(example)
    found = deepshap.register_lstm_shap_hook(cell, *base).calculate_shap(*example)
    for f, w in zip(found.values(), wanted, strict=True):
        assert_close(f.transpose(1, 2).numpy(), w)


def test_multipliers_tend_to_the_jacobian():
    cell = built(nn.LSTMCell(3, 2))
    base = [v[0] for v in inputs(3, 2, 2)]
    step = 1e-6
    values = deepshap.register_lstm_shap_hook(cell, *base).calculate_shap(*(v + step for v in base))
    jacobians = torch.autograd.functional.jacobian(lambda x, h, c: cell(x, (h, c))[1], tuple(base))
    for found, jacobian in zip(values.values(), jacobians, strict=True):
        assert_close((found / step).numpy(), jacobian.numpy(), 1e-5)


# ---------------------------------------------------------------------- cells by hand
def as_torch(cell: ManualLSTM, features: int, units: int) -> nn.LSTMCell:
    """Put a manual cell's weights into a cell of torch's."""
    twin = nn.LSTMCell(features, units).double()
    with torch.no_grad():
        for side in "ih":
            linears = [getattr(cell, f"fc_{side}{gate}") for gate in cell.gates]
            rest = [torch.zeros_like(linears[0].weight)] * (4 - len(linears))
            getattr(twin, f"weight_{side}h").copy_(torch.cat([*(l.weight for l in linears), *rest]))
            zeros = torch.zeros(units)
            biases = [zeros if l.bias is None else l.bias for l in linears] + [zeros] * len(rest)
            getattr(twin, f"bias_{side}h").copy_(torch.cat(biases))
    return twin


@pytest.mark.parametrize("output", [True, False], ids=["output gate", "no output gate"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@every_size
def test_a_cell_of_linear_layers_equals_its_twin(bias, output, features, units):
    cell = built(ManualLSTM(features, units, bias, output))
    twin = as_torch(cell, features, units)
    example, base = inputs(features, units, 2, seed=1), inputs(features, units, 2, seed=5)
    for state in ("c", "h") if output else ("c",):
        new, values = deepshap.register_lstm_shap_hook(cell, *base, output=state)(*example)
        new_twin, values_twin = deepshap.register_lstm_shap_hook(twin, *base, output=state)(*example)
        assert_close(new.numpy(), new_twin.numpy())
        for found, wanted in zip(values.values(), values_twin.values(), strict=True):
            assert_close(found.numpy(), wanted.numpy())


def test_some_biases_may_be_missing():
    cell = built(ManualLSTM(3, 2))
    cell.fc_hf = nn.Linear(2, 2, bias=False).double()
    hook = deepshap.register_lstm_shap_hook(cell, *inputs(3, 2, 2, seed=5))
    check_sums(hook, *hook(*inputs(3, 2, 2)))


def test_weights_are_read_at_every_call():
    cell = nn.LSTMCell(3, 2)
    hook = deepshap.register_lstm_shap_hook(cell, 0.0, 0.0, 0.0)
    before = hook.calculate_shap(*inputs(3, 2, 2))["shap_x"]
    built(cell)
    new, values = hook(*inputs(3, 2, 2))
    assert new.dtype == torch.float64
    check_sums(hook, new, values)
    assert not torch.allclose(before.double(), values["shap_x"])


# ---------------------------------------------------------------------- rows
def test_single_rows_batches_and_broadcasting_agree():
    cell = built(nn.LSTMCell(3, 2))
    example, base = inputs(3, 2, 2), inputs(3, 2, 2, rows=1, seed=5)
    new, values = deepshap.register_lstm_shap_hook(cell, *base)(*example)
    single = deepshap.register_lstm_shap_hook(cell, *(b[0] for b in base))
    repeated = deepshap.register_lstm_shap_hook(cell, *(b.expand(4, -1) for b in base))
    assert single.base_output.shape == (2,)
    for row in range(4):
        new_row, values_row = single(*(v[row] for v in example))
        assert new_row.shape == (2,)
        assert_close(new_row.numpy(), new[row].numpy())
        for name in values:
            assert_close(values_row[name].numpy(), values[name][row].numpy())
    for name, found in repeated.calculate_shap(*example).items():
        assert_close(found.numpy(), values[name].numpy())
    many = deepshap.register_lstm_shap_hook(cell, *example).calculate_shap(*(b[0] for b in base))
    for name, found in many.items():
        assert_close(found.numpy(), -values[name].numpy())


def test_numbers_and_arrays_will_do():
    cell = built(nn.LSTMCell(3, 2))
    example = inputs(3, 2, 2)
    wanted = deepshap.register_lstm_shap_hook(cell, torch.zeros(3), torch.zeros(2), torch.zeros(1, 2))(*example)
    new, values = deepshap.register_lstm_shap_hook(cell, np.zeros(3), 0.0, 0)(*(v.numpy() for v in example))
    assert_close(new.numpy(), wanted[0].numpy())
    assert_close(values["shap_x"].numpy(), wanted[1]["shap_x"].numpy())


def test_the_module_and_the_baseline_are_left_alone():
    cell = ManualLSTM(3, 2).train()
    base = [v[0].float() for v in inputs(3, 2, 2)]
    hook = deepshap.register_lstm_shap_hook(cell, *base)
    before = hook.base_output
    base[0].fill_(7)
    _, values = hook(*inputs(3, 2, 2, seed=3))
    assert torch.equal(hook.base_output, before)
    assert cell.training
    assert all(p.requires_grad and p.grad is None for p in cell.parameters())
    assert not cell._forward_hooks
    assert not cell._forward_pre_hooks
    assert not any(v.requires_grad for v in values.values())


# ---------------------------------------------------------------------- errors
class Peephole(ManualLSTM):
    """A cell with the right names whose gates see the old cell state."""

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
        return super().forward(x, h + 0.1 * c, c)


class Tuples(ManualLSTM):
    """A manual cell that takes its states as torch's do."""

    def forward(self, x: Tensor, state: Any) -> Any:  # type: ignore[override]
        return super().forward(x, *state)


class WeightsAlone(ManualLSTM):
    """A manual cell that is never called itself."""

    forward = nn.Module.forward


@pytest.mark.parametrize("kind", [Tuples, WeightsAlone])
def test_a_cell_may_take_its_states_as_a_tuple_or_have_no_forward(kind):
    hook = deepshap.register_lstm_shap_hook(built(kind(3, 2)), 0.0, 0.0, 0.0)
    check_sums(hook, *hook(*inputs(3, 2, 2)))


def hook_of(cell: nn.Module, *base: Any, **options: Any) -> Any:
    return deepshap.register_lstm_shap_hook(cell, *(base or (0.0, 0.0, 0.0)), **options)


def renamed() -> nn.Module:
    cell = ManualLSTM(3, 2)
    del cell.fc_ho
    return cell


def misshapen() -> nn.Module:
    cell = ManualLSTM(3, 2)
    cell.fc_if = nn.Linear(4, 2)
    return cell


class FakeKeras(nn.Module):
    """Stands for a Keras cell, which is known by the module that its class comes from."""


FakeKeras.__module__ = "keras.src.layers"

ERRORS = {
    "no cell": (lambda: hook_of(nn.Linear(3, 2)), "fc_ii, fc_hi, fc_if, fc_hf, fc_ig, fc_hg .* found none"),
    "a layer": (lambda: hook_of(nn.LSTM(3, 2)), "weights of LSTM could not be found.*DeepExplainer"),
    "half an output gate": (lambda: hook_of(renamed()), "both fc_io and fc_ho; found .*fc_io"),
    "gates of different sizes": (lambda: hook_of(misshapen()), r"fc_if \(2, 4\)"),
    "Keras": (lambda: hook_of(FakeKeras()), "FakeKeras is a Keras layer, but no keras.layers.LSTMCell"),
    "width of x": (lambda: hook_of(nn.LSTMCell(3, 2))(torch.zeros(5, 4), 0, 0), r"x has shape \(5, 4\).*\(batch, 3\)"),
    "width of h_base": (
        lambda: hook_of(nn.LSTMCell(3, 2), 0.0, torch.zeros(3), 0.0),
        r"h_base has shape \(3,\).*\(batch, 2\)",
    ),
    "axes": (lambda: hook_of(nn.LSTMCell(3, 2))(torch.zeros(5, 4, 3), 0, 0), r"x has shape \(5, 4, 3\)"),
    "rows": (lambda: hook_of(nn.LSTMCell(3, 2))(torch.zeros(5, 3), torch.zeros(4, 2), 0), "4, 5 rows"),
    "rows of the baseline": (
        lambda: hook_of(nn.LSTMCell(3, 2), torch.zeros(2, 3), 0.0, 0.0)(torch.zeros(5, 3), 0, 0),
        "2, 5 rows",
    ),
    "no c": (lambda: hook_of(nn.LSTMCell(3, 2), 0.0, 0.0), r"c_base is missing: pass a tensor \(batch, 2\)"),
    "c of a GRU": (lambda: hook_of(nn.GRUCell(3, 2)), "no cell state: leave c_base out"),
    "c in the call": (lambda: hook_of(nn.GRUCell(3, 2), 0.0, 0.0)(0, 0, 0), "no cell state: leave c out"),
    "NaN": (lambda: hook_of(nn.LSTMCell(3, 2))(float("nan"), 0, 0), "x has NaN"),
    "no tensor": (lambda: hook_of(nn.LSTMCell(3, 2))("x", 0, 0), "not a str"),
    "output": (lambda: hook_of(nn.GRUCell(3, 2), 0.0, 0.0, output="c"), "yields 'h'"),
    "no hidden state": (lambda: hook_of(ManualLSTM(3, 2, output=False), output="h"), "yields 'c'"),
    "another function": (lambda: hook_of(Peephole(3, 2))(0.3, 0.2, 0.7), "Peephole.forward returns other values"),
    "activation": (
        lambda: deepshap.gate_attribution(0.0, 0.0, 0.0, 0.0, drawn(2, 3), drawn(2, 2), activation="relu"),
        "'sigmoid' or 'tanh'",
    ),
    "factors": (lambda: deepshap.product_attribution(drawn(3), drawn(2), 0, 0), r"\(3,\), \(2,\)"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_cure(name):
    run, message = ERRORS[name]
    with pytest.raises(deepshap.InputError, match=message):
        run()


def test_building_blocks_are_public():
    assert deepshap.gate_attribution is cells.gate_attribution
    assert deepshap.product_attribution is cells.product_attribution
    assert isinstance(hook_of(nn.LSTMCell(3, 2)), deepshap.LSTMShapBackwardHook)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        deepshap.nothing  # noqa: B018


def test_deepshap_can_be_imported_without_torch():
    code = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
import deepshap
deepshap.register_lstm_shap_hook  # for cells of Keras
assert "torch" not in sys.modules
try:
    deepshap.gate_attribution
except ModuleNotFoundError as error:
    assert error.name == "torch"
else:
    raise SystemExit("a gate by itself needs torch")
"""
    subprocess.run([sys.executable, "-c", code], check=True)

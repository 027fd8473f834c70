"""Recurrent networks, state-space models, convolutions in time, differential equations: libraries that install light."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from case import Case, normal
from torch import nn


class Last(nn.Module):
    """What a recurrent network says at its last step, read out."""

    def __init__(self, network: nn.Module, units: int) -> None:
        super().__init__()
        self.network, self.head = network, nn.Linear(units, 2)

    def forward(self, x: Any) -> Any:
        found = self.network(x)
        return self.head((found[0] if isinstance(found, tuple) else found)[:, -1])


class Field(nn.Module):
    """The right-hand side of a differential equation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, t: Any, y: Any) -> Any:
        return self.net(y) * torch.cos(t)


class Flow(nn.Module):
    """Where a differential equation carries its start."""

    def __init__(self, adjoint: bool = False, apart: bool = False, **options: Any) -> None:
        super().__init__()
        self.field, self.adjoint, self.apart, self.options = Field(), adjoint, apart, options

    def forward(self, x: Any) -> Any:
        import torchdiffeq

        solve = torchdiffeq.odeint_adjoint if self.adjoint else torchdiffeq.odeint
        times = torch.linspace(0, 1, 4, dtype=x.dtype)
        if self.apart:
            return torch.stack([solve(self.field, row, times, **self.options)[-1] for row in x])
        return solve(self.field, x, times, **self.options)[-1]


class Controlled(nn.Module):
    """A neural controlled differential equation along a series."""

    def __init__(self, spline: str) -> None:
        super().__init__()
        self.spline, self.start = spline, nn.Linear(3, 4)
        self.net = nn.Sequential(nn.Linear(4, 12), nn.Tanh())

    def forward(self, x: Any) -> Any:
        import torchcde

        made = getattr(torchcde, f"{self.spline}_coeffs")(x)
        kind = torchcde.LinearInterpolation if self.spline == "linear_interpolation" else torchcde.CubicSpline
        path = kind(made)
        field = lambda t, z: self.net(z).unflatten(-1, (4, 3))  # noqa: E731
        start = self.start(path.evaluate(path.interval[0]))
        return torchcde.cdeint(
            path, field, start, path.interval, adjoint=False, method="rk4", options={"step_size": 1.0}
        )[:, -1]


def ncps(kind: str, wired: bool = False, single: bool = False, **options: Any) -> Case:
    """Closed-form and liquid time constants."""
    import ncps.torch
    from ncps.wirings import AutoNCP

    units = AutoNCP(10, 3) if wired else 8
    return Case(Last(getattr(ncps.torch, kind)(3, units, **options), 3 if wired else 8), normal(6, 3), single=single)


def mambapy(kind: str) -> Case:
    """Mamba in plain PyTorch."""
    if kind == "Mamba2":
        from mambapy.mamba2 import Mamba2, Mamba2Config

        return Case(Mamba2(Mamba2Config(d_model=16, n_layers=1, d_head=8, d_state=4)), normal(6, 16))
    from mambapy.mamba import Mamba, MambaConfig

    return Case(Last(Mamba(MambaConfig(d_model=8, n_layers=2, d_state=4, pscan=kind == "scan")), 8), normal(6, 8))


def tcn(**options: Any) -> Case:
    """Temporal convolutions."""
    from pytorch_tcn import TCN

    return Case(Last(TCN(3, [6, 6], kernel_size=3, input_shape="NLC", **options), 6), normal(12, 3))


def min_rnn(name: str) -> Case:
    """Recurrent networks without a loop."""
    module = import_module(f"minGRU_pytorch.{name}")
    return Case(Last(getattr(module, name)(8), 8), normal(6, 8))


def s5() -> Case:
    """Simplified state spaces: complex numbers, an associative scan."""
    from s5 import S5

    return Case(Last(S5(4, 4), 4), normal(6, 4), single=True)


def xlstm(block: str) -> Case:
    """Extended LSTM: a matrix memory or a scalar one."""
    from xlstm import (
        FeedForwardConfig,
        mLSTMBlockConfig,
        mLSTMLayerConfig,
        sLSTMBlockConfig,
        sLSTMLayerConfig,
        xLSTMBlockStack,
        xLSTMBlockStackConfig,
    )

    m = mLSTMBlockConfig(mLSTMLayerConfig(conv1d_kernel_size=3, qkv_proj_blocksize=4, num_heads=2))
    s = sLSTMBlockConfig(
        sLSTMLayerConfig(backend="vanilla", num_heads=2, conv1d_kernel_size=3), FeedForwardConfig(act_fn="gelu")
    )
    chosen = {"mLSTM": {"mlstm_block": m}, "sLSTM": {"slstm_block": s, "slstm_at": "all"}}[block]
    config = xLSTMBlockStackConfig(**chosen, context_length=6, num_blocks=1, embedding_dim=16)
    return Case(Last(xLSTMBlockStack(config), 16), normal(6, 16))


STEPS = {"first_step": 0.25, "min_step": 0.25, "max_step": 0.25}

MODELS = {
    "ncps": {
        "CfC": lambda: ncps("CfC"),
        "CfC, pure": lambda: ncps("CfC", mode="pure"),
        "CfC, mixed memory": lambda: ncps("CfC", single=True, mixed_memory=True),
        "CfC, wired": lambda: ncps("CfC", wired=True),
        "LTC": lambda: ncps("LTC"),
        "LTC, wired": lambda: ncps("LTC", wired=True),
    },
    "mambapy": {
        "Mamba, scan": lambda: mambapy("scan"),
        "Mamba, steps": lambda: mambapy("steps"),
    },
    "torchdiffeq": {
        "odeint, rk4": lambda: Case(Flow(method="rk4"), normal(3)),
        "odeint, implicit_adams": lambda: Case(Flow(method="implicit_adams"), normal(3)),
        "odeint, dopri5": lambda: Case(Flow(method="dopri5"), normal(3)),
        "odeint, dopri5, each row": lambda: Case(Flow(apart=True, method="dopri5", rtol=1e-3, atol=1e-3), normal(3)),
        **{
            f"odeint, {method}, steps of one size": lambda method=method: Case(
                Flow(method=method, options=STEPS), normal(3)
            )
            for method in ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
        },
        "odeint_adjoint, rk4": lambda: Case(Flow(adjoint=True, method="rk4"), normal(3)),
    },
    "torchcde": {
        "cdeint, cubic": lambda: Case(Controlled("natural_cubic"), normal(6, 3)),
        "cdeint, linear": lambda: Case(Controlled("linear_interpolation"), normal(6, 3)),
    },
    "pytorch-tcn": {
        "TCN, causal": lambda: tcn(),
        "TCN, gated": lambda: tcn(use_gate=True, use_skip_connections=True),
        "TCN, layer norm": lambda: tcn(use_norm="layer_norm", causal=False),
    },
    "minGRU-pytorch": {"minGRU": lambda: min_rnn("minGRU"), "minLSTM": lambda: min_rnn("minLSTM")},
    "s5-pytorch": {"S5": s5},
    "xlstm": {"mLSTM": lambda: xlstm("mLSTM"), "sLSTM": lambda: xlstm("sLSTM")},
}

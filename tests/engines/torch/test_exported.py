"""Every module of torch.nn that has a rule is explained alike as it is, as an exported program, and decomposed.

``torch.export`` writes a model with the operations of aten, whose arguments come in another order than those of
``torch.nn.functional``; ``run_decompositions`` replaces them by smaller ones. The values of the module itself are the truth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deepshap

ROWS, REFERENCES = 3, 4


def rows_of(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


class Around(nn.Module):
    """A module between an affine map of each number and fixed weights, so that its output has one number per row."""

    def __init__(self, module: nn.Module, into: Callable[[Tensor], tuple[Any, ...]] | None = None):
        super().__init__()
        self.module, self.into = module, into

    def forward(self, x: Tensor) -> Tensor:
        made = self.module(*(self.into(x) if self.into else (x,)))
        made = made[0] if isinstance(made, tuple) else made
        flat = made.unsqueeze(-1).flatten(1)
        return flat @ torch.linspace(-1, 1, flat.shape[1], dtype=x.dtype)[:, None]


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, :3], x[:, 3:]


def positive(x: Tensor) -> tuple[Tensor]:
    return (x.sigmoid(),)


def against_itself(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.sigmoid(), x.flip(-1).sigmoid()


def log_against_itself(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.nn.functional.logsigmoid(x), x.flip(-1).sigmoid()


def with_signs(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.ones_like(x)


def as_ids(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.ones(x.shape[0], dtype=torch.int64)


def three_times(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x, x, x


def twice(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


FLAT, SERIES, IMAGE, VOLUME, STEPS = (6,), (4, 9), (4, 8, 6), (2, 6, 4, 4), (5, 6)
_RECURRENT = {"batch_first": True}
# A module, the shape of a row, and what it takes of it if not the row itself.
CASES: dict[str, tuple[Any, ...]] = {
    "Linear": (lambda: nn.Linear(6, 4), FLAT),
    "Bilinear": (lambda: nn.Bilinear(3, 3, 4), FLAT, halves),
    "Identity": (nn.Identity, FLAT),
    "Flatten": (nn.Flatten, SERIES),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 3)), FLAT),
    **{
        f"Conv{n}d": (lambda n=n, s=s: getattr(nn, f"Conv{n}d")(s[0], 4, 3, padding=1), s)
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"ConvTranspose{n}d": (lambda n=n, s=s: getattr(nn, f"ConvTranspose{n}d")(s[0], 3, 3, stride=2), s)
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    "Conv1d of groups": (lambda: nn.Conv1d(4, 4, 3, groups=2), SERIES),
    **{
        f"Conv{n}d {mode}": (
            lambda n=n, s=s, mode=mode: getattr(nn, f"Conv{n}d")(s[0], 4, 3, padding=1, padding_mode=mode),
            s,
        )
        for mode in ("circular", "reflect", "replicate")
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    "Fold": (lambda: nn.Fold((4, 4), 2, stride=2), (8, 4)),
    "Unfold": (lambda: nn.Unfold(3, padding=1), IMAGE),
    **{
        f"{kind}Pool{n}d": (lambda kind=kind, n=n: getattr(nn, f"{kind}Pool{n}d")(2), s)
        for kind in ("Max", "Avg")
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"MaxPool{n}d of options": (lambda n=n: getattr(nn, f"MaxPool{n}d")(3, 2, 1, ceil_mode=True), s)
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"MaxPool{n}d with indices": (lambda n=n: getattr(nn, f"MaxPool{n}d")(2, return_indices=True), s)
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"Adaptive{kind}Pool{n}d": (lambda kind=kind, n=n: getattr(nn, f"Adaptive{kind}Pool{n}d")(2), s)
        for kind in ("Max", "Avg")
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"AdaptiveMaxPool{n}d with indices": (
            lambda n=n: getattr(nn, f"AdaptiveMaxPool{n}d")(2, return_indices=True),
            s,
        )
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"LPPool{n}d": (lambda n=n: getattr(nn, f"LPPool{n}d")(2, 2), s)
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    "MaxUnpool1d": (lambda: Unpooled(1), SERIES),
    "MaxUnpool2d": (lambda: Unpooled(2), IMAGE),
    **{
        f"{kind}Pad{n}d": (lambda kind=kind, n=n: getattr(nn, f"{kind}Pad{n}d")(1), s)
        for kind in ("Reflection", "Replication", "Zero", "Circular")
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"ConstantPad{n}d": (lambda n=n: getattr(nn, f"ConstantPad{n}d")(1, 0.5), s)
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    **{
        name: (getattr(nn, name), FLAT)
        for name in (
            "ELU",
            "Hardshrink",
            "Hardsigmoid",
            "Hardtanh",
            "Hardswish",
            "LeakyReLU",
            "LogSigmoid",
            "PReLU",
            "ReLU",
            "ReLU6",
            "RReLU",
            "SELU",
            "CELU",
            "GELU",
            "Sigmoid",
            "SiLU",
            "Mish",
            "Softplus",
            "Softshrink",
            "Softsign",
            "Tanh",
            "Tanhshrink",
            "Dropout",
            "AlphaDropout",
            "FeatureAlphaDropout",
        )
    },
    "GELU tanh": (lambda: nn.GELU("tanh"), FLAT),
    "Threshold": (lambda: nn.Threshold(0.1, 2.0), FLAT),
    "GLU": (nn.GLU, FLAT),
    **{name: (lambda name=name: getattr(nn, name)(1), FLAT) for name in ("Softmin", "Softmax", "LogSoftmax")},
    "Softmax2d": (nn.Softmax2d, IMAGE),
    **{f"Dropout{n}d": (getattr(nn, f"Dropout{n}d"), s) for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))},
    **{
        f"BatchNorm{n}d": (lambda n=n, s=s: settled(getattr(nn, f"BatchNorm{n}d")(s[0])), s)
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    "BatchNorm1d flat": (lambda: settled(nn.BatchNorm1d(6)), FLAT),
    "BatchNorm1d plain": (lambda: settled(nn.BatchNorm1d(4, affine=False)), SERIES),
    **{
        f"InstanceNorm{n}d": (lambda n=n, s=s: getattr(nn, f"InstanceNorm{n}d")(s[0]), s)
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"InstanceNorm{n}d settled": (
            lambda n=n, s=s: settled(getattr(nn, f"InstanceNorm{n}d")(s[0], affine=True, track_running_stats=True)),
            s,
        )
        for n, s in ((1, SERIES), (2, IMAGE), (3, VOLUME))
    },
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "LayerNorm": (lambda: nn.LayerNorm(6), STEPS),
    "RMSNorm": (lambda: nn.RMSNorm(6), STEPS),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(2), IMAGE),
    "RNN": (lambda: nn.RNN(6, 3, **_RECURRENT), STEPS),
    "RNN relu": (lambda: nn.RNN(6, 3, nonlinearity="relu", **_RECURRENT), STEPS),
    "LSTM": (lambda: nn.LSTM(6, 3, 2, bidirectional=True, **_RECURRENT), STEPS),
    "LSTM projected": (lambda: nn.LSTM(6, 4, proj_size=2, **_RECURRENT), STEPS),
    "GRU": (lambda: nn.GRU(6, 3, **_RECURRENT), STEPS),
    "RNNCell": (lambda: nn.RNNCell(6, 3), FLAT),
    "LSTMCell": (lambda: nn.LSTMCell(6, 3), FLAT),
    "GRUCell": (lambda: nn.GRUCell(6, 3), FLAT),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(6, 2, batch_first=True), STEPS, three_times),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), STEPS),
    "TransformerDecoderLayer": (lambda: nn.TransformerDecoderLayer(6, 2, 8, batch_first=True), STEPS, twice),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 1, enable_nested_tensor=False
        ),
        STEPS,
    ),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), IMAGE),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), IMAGE),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(2), IMAGE),
    "UpsamplingNearest2d": (lambda: nn.UpsamplingNearest2d(scale_factor=2), IMAGE),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(scale_factor=2), IMAGE),
    **{
        f"Upsample {mode}": (lambda mode=mode: nn.Upsample(scale_factor=2, mode=mode), s)
        for mode, s in (
            ("nearest", IMAGE),
            ("nearest-exact", IMAGE),
            ("linear", SERIES),
            ("bilinear", IMAGE),
            ("bicubic", IMAGE),
            ("trilinear", VOLUME),
        )
    },
    "Upsample nearest-exact 1d": (lambda: nn.Upsample(size=5, mode="nearest-exact"), SERIES),
    "Upsample nearest-exact 3d": (lambda: nn.Upsample(scale_factor=1.5, mode="nearest-exact"), VOLUME),
    **{
        f"interpolate {mode}, antialias": (
            lambda mode=mode: Applied(partial(nn.functional.interpolate, size=(3, 2), mode=mode, antialias=True)),
            IMAGE,
        )
        for mode in ("bilinear", "bicubic")
    },
    "grid_sample": (lambda: Applied(sampled), IMAGE),
    "torch.batch_norm": (lambda: Applied(normalized), SERIES),
    "torch.instance_norm": (lambda: Applied(normalized_alone), SERIES),
    "torch.adaptive_max_pool1d": (lambda: Applied(lambda x: torch.adaptive_max_pool1d(x, 2)[0]), SERIES),
    "cdist": (lambda: Applied(lambda x: torch.cdist(x, x.flip(-1))), STEPS),
    "rfft": (lambda: Applied(lambda x: torch.fft.irfft(torch.fft.rfft(x)[..., :3])), SERIES),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), FLAT),
    "CosineSimilarity": (nn.CosineSimilarity, FLAT, halves),
    "PairwiseDistance": (nn.PairwiseDistance, FLAT, halves),
    **{
        name: (lambda name=name: getattr(nn, name)(reduction="none"), FLAT, into)
        for name, into in {
            "L1Loss": halves,
            "MSELoss": halves,
            "SmoothL1Loss": halves,
            "HuberLoss": halves,
            "BCELoss": against_itself,
            "BCEWithLogitsLoss": against_itself,
            "KLDivLoss": log_against_itself,
            "SoftMarginLoss": with_signs,
            "CrossEntropyLoss": as_ids,
            "NLLLoss": as_ids,
        }.items()
    },
    "SmoothL1Loss of beta": (lambda: nn.SmoothL1Loss(reduction="none", beta=0.3), FLAT, halves),
    "HuberLoss of delta": (lambda: nn.HuberLoss(reduction="none", delta=0.3), FLAT, halves),
    "BCEWithLogitsLoss of weights": (
        lambda: nn.BCEWithLogitsLoss(
            torch.full((6,), 0.3, dtype=torch.float64),
            reduction="none",
            pos_weight=torch.full((6,), 2.0, dtype=torch.float64),
        ),
        FLAT,
        against_itself,
    ),
    "CrossEntropyLoss smoothed": (lambda: nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1), FLAT, as_ids),
}

# The decomposition does not show that the divisor is a norm, so the rule of any quotient divides the same sums otherwise.
SPLIT_OTHERWISE = {("CosineSimilarity", "decomposed")}
# Modules without a rule (losses that nobody explains, random poolings), without floats, containers, and the cases' own wrappers.
WITHOUT_CASE = {
    *(
        "PoissonNLLLoss",
        "GaussianNLLLoss",
        "HingeEmbeddingLoss",
        "CosineEmbeddingLoss",
        "MarginRankingLoss",
        "TripletMarginLoss",
    ),
    *(
        "TripletMarginWithDistanceLoss",
        "MultiLabelSoftMarginLoss",
        "MultiLabelMarginLoss",
        "MultiMarginLoss",
        "CTCLoss",
    ),
    *(
        "NLLLoss2d",
        "AdaptiveLogSoftmaxWithLoss",
        "LinearCrossEntropyLoss",
        "FractionalMaxPool2d",
        "FractionalMaxPool3d",
    ),
    *(
        "Embedding",
        "EmbeddingBag",
        "Container",
        "Sequential",
        "ModuleList",
        "ModuleDict",
        "ParameterList",
        "ParameterDict",
    ),
    *(
        "Module",
        "DataParallel",
        "RNNBase",
        "RNNCellBase",
        "SyncBatchNorm",
        "CrossMapLRN2d",
        "Transformer",
        "TransformerDecoder",
    ),
    "MaxUnpool3d",
}


def test_every_module_of_torch_has_a_case_or_a_reason() -> None:
    modules = {name for name, value in vars(nn).items() if isinstance(value, type) and issubclass(value, nn.Module)}
    cases = {name.split()[0] for name in CASES}
    assert {name for name in modules - cases - WITHOUT_CASE if not name.startswith("Lazy")} == set()


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def sampled(x: Tensor) -> Tensor:
    grid = torch.linspace(-1, 1, 24, dtype=x.dtype).reshape(1, 4, 3, 2).expand(x.shape[0], -1, -1, -1)
    return nn.functional.grid_sample(x, grid, align_corners=False)


def normalized(x: Tensor) -> Tensor:
    statistics = [torch.linspace(low, low + 1, 4, dtype=x.dtype) for low in (0.5, 0.7, -0.5, 0.3)]
    return torch.batch_norm(x, *statistics, False, 0.1, 1e-5, False)


def normalized_alone(x: Tensor) -> Tensor:
    return torch.instance_norm(x, None, None, None, None, True, 0.1, 1e-5, False)


class Unpooled(nn.Module):
    """A pooling and what undoes it."""

    def __init__(self, axes: int):
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{axes}d")(2, return_indices=True)
        self.unpool = getattr(nn, f"MaxUnpool{axes}d")(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.unpool(*self.pool(x))


def settled(norm: nn.Module) -> nn.Module:
    """A normalisation whose running statistics and weights are not the ones that it began with."""
    with torch.no_grad():
        for k, values in enumerate([*norm.parameters(), *norm.buffers()]):
            if values.is_floating_point():
                values.copy_(torch.rand_like(values) + 0.5 + 0.1 * k)
    return norm


def explain(model: Any, shape: tuple[int, ...]) -> np.ndarray:
    explainer = deepshap.DeepExplainer(model, rows_of((REFERENCES, *shape), 1))
    return np.asarray(explainer.shap_values(rows_of((ROWS, *shape), 0)))


@pytest.fixture(scope="module")
def eager() -> dict[str, tuple[nn.Module, np.ndarray]]:
    return {}


def case(name: str, form: str) -> Any:
    """A third axis, and activations before they are decomposed, show little that others do not."""
    again = "3d" in name or "trilinear" in name or "Dropout" in name or (form == "exported" and CASES[name][1] == FLAT)
    return pytest.param(name, form, marks=[pytest.mark.wide] if again else [])


@pytest.mark.parametrize(("name", "form"), [case(n, form) for n in CASES for form in ("exported", "decomposed")])
def test_a_module_is_explained_alike_in_every_form(name: str, form: str, eager: Any) -> None:
    make, shape, into = (*CASES[name], None)[:3]
    if name not in eager:
        torch.manual_seed(0)
        module = Around(make().double(), into).double().eval()
        eager[name] = module, explain(module, shape)
    module, expected = eager[name]
    if (name, form) in SPLIT_OTHERWISE:
        expected = expected.sum(1, keepdims=True)
    found = explain(exported(module, shape, form == "decomposed"), shape)
    if (name, form) in SPLIT_OTHERWISE:
        found = found.sum(1, keepdims=True)
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


aten = torch.ops.aten
MEAN, VAR, SCALE, SHIFT = torch.linspace(0.5, 2.0, 16, dtype=torch.float64).reshape(4, 4)
# Calls of aten that no export above makes, each beside what it stands for.
PAIRS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "native_batch_norm": (
        lambda x: aten.native_batch_norm(x, SCALE, SHIFT, MEAN, VAR, False, 0.1, 1e-5)[0],
        lambda x: nn.functional.batch_norm(x, MEAN, VAR, SCALE, SHIFT),
        SERIES,
    ),
    "native_group_norm": (
        lambda x: torch.cat(
            [v.reshape(len(x), -1) for v in aten.native_group_norm(x, None, None, len(x), 4, 9, 2, 1e-5)], 1
        ),
        lambda x: torch.cat(
            [
                nn.functional.group_norm(x, 2).reshape(len(x), -1),
                x.reshape(len(x), 2, -1).mean(-1),
                (x.reshape(len(x), 2, -1).var(-1, correction=0) + 1e-5).rsqrt(),
            ],
            1,
        ),
        SERIES,
    ),
    "_fused_rms_norm": (
        lambda x: aten._fused_rms_norm(x, [6], None, 1e-5)[0],
        lambda x: nn.functional.rms_norm(x, (6,), None, 1e-5),
        STEPS,
    ),
    "log_sigmoid_forward": (lambda x: aten.log_sigmoid_forward(x)[0], nn.functional.logsigmoid, FLAT),
    "_euclidean_dist": (lambda x: aten._euclidean_dist(x, x.flip(-1)), lambda x: torch.cdist(x, x.flip(-1)), STEPS),
    "nll_loss2d_forward": (
        lambda x: aten.nll_loss2d_forward(x, torch.ones(len(x), 8, 6, dtype=torch.int64), None, 0, -100)[0],
        lambda x: -x[:, 1],
        IMAGE,
    ),
    "_weight_norm_interface": (
        lambda x: aten._weight_norm_interface(x, x[:, :1, :1].contiguous(), 0)[0],
        lambda x: x * (x[:, :1, :1] / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)),
        SERIES,
    ),
    "_adaptive_avg_pool3d": (
        lambda x: aten._adaptive_avg_pool3d(x, [2, 2, 2]),
        lambda x: nn.functional.adaptive_avg_pool3d(x, 2),
        VOLUME,
    ),
    "max_unpool3d": (
        lambda x: aten.max_unpool3d(*aten.max_pool3d_with_indices(x, [2], [2]), [6, 4, 4], [2, 2, 2], [0, 0, 0]),
        lambda x: nn.functional.max_unpool3d(*nn.functional.max_pool3d(x, 2, return_indices=True), 2),
        VOLUME,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_call_of_aten_is_explained_as_what_it_stands_for(name: str) -> None:
    called, usual, shape = PAIRS[name]
    found, expected = (explain(Around(Applied(function)).double(), shape) for function in (called, usual))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


def exported(module: nn.Module, shape: tuple[int, ...], decomposed: bool) -> nn.Module:
    rows = torch.export.Dim("rows", min=1, max=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (rows_of((ROWS, *shape), 0),), dynamic_shapes=({0: rows},))
        return (program.run_decompositions() if decomposed else program).module()

"""torch's switches for faster, rounder float32 products are off while a model is explained, and as they were afterwards."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import deepshap

BACKENDS = torch.backends
SETTINGS = {
    "torch's own": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "older switches": lambda: (
        setattr(BACKENDS.cuda.matmul, "allow_tf32", True),
        setattr(BACKENDS.cudnn, "allow_tf32", True),
    ),
    "newer switch for all": lambda: setattr(BACKENDS, "fp32_precision", "tf32"),
    "newer switch for one": lambda: setattr(BACKENDS.cudnn.rnn, "fp32_precision", "ieee"),
}


def switches() -> list[object]:
    kinds = [BACKENDS, BACKENDS.cudnn, BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn]
    readers = [
        torch.get_float32_matmul_precision,
        lambda: BACKENDS.cuda.matmul.allow_tf32,
        lambda: BACKENDS.cudnn.allow_tf32,
    ]
    return [*(kind.fp32_precision for kind in kinds), *map(read, readers)]


def read(switch) -> object:
    try:
        return switch()
    except RuntimeError:
        return "refused"


@pytest.fixture
def restored():
    """Undo what a test sets."""
    fresh = switches()
    yield
    BACKENDS.fp32_precision = BACKENDS.cudnn.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cuda.matmul.allow_tf32, BACKENDS.cudnn.allow_tf32 = False, True
    BACKENDS.cuda.matmul.fp32_precision = "none"
    assert switches() == fresh


class Recording(nn.Module):
    """Notes the switches at every call; what it holds itself would be restored afterwards."""

    seen: ClassVar[list[list[object]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(switches())
        return self.inner(x).tanh()


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("name", SETTINGS)
def test_products_are_exact_meanwhile_and_settings_are_kept(name):
    SETTINGS[name]()
    before = switches()
    Recording.seen.clear()
    deepshap.DeepExplainer(Recording(), torch.randn(4, 3), progress=False).shap_values(torch.randn(2, 3))
    assert switches() == before
    # of all kinds of products "ieee", by the older switches "highest" and twice no
    assert {tuple(each[2:]) for each in Recording.seen} == {("ieee", "ieee", "ieee", "highest", False, False)}


@pytest.mark.usefixtures("restored")
def test_settings_are_kept_after_an_error():
    torch.set_float32_matmul_precision("high")
    before = switches()
    with pytest.raises(deepshap.InputError):
        deepshap.DeepExplainer(Recording(), torch.randn(4, 3), progress=False).shap_values(torch.randn(2, 4))
    assert switches() == before

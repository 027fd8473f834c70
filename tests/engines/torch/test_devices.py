"""Models on every device that is present, in every precision."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from helpers import assert_close, built, drawn
from models import KINDS, Recurrent
from test_oracle import DEEP, oracle_values
from torch import Tensor, nn

import deepshap
from deepshap.engines.torch.preserve import full_float32
from deepshap.engines.torch.recurrent import fused
from deepshap.formulas.additivity import TOLERANCE as BY_NAME

TOLERANCE = {getattr(torch, name): allowed for name, allowed in BY_NAME.items()}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
every_device = pytest.mark.parametrize("device", DEVICES)
pytestmark = [  # what torch says on a GPU of its own doing
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS, but there was no current CUDA context"),
    pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature"),
]


class Speech(nn.Module):
    """Convolution, packed bidirectional LSTM, attention, GRU: each part has its own kernels on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(3, 8, 3, padding=1)
        self.lstm = nn.LSTM(8, 8, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.gru = nn.GRU(16, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h = torch.relu(self.front(x.mT)).mT
        packed = nn.utils.rnn.pack_padded_sequence(h, lengths.cpu(), batch_first=True, enforce_sorted=False)
        h, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head(self.gru(h)[0][:, -1])


def setting(device: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Speech().to(device, dtype)
    X, R = (torch.randn(n, 5, 3, dtype=torch.float64).to(device, dtype) for n in (3, 4))
    return model, X, R, torch.tensor([5, 3, 4])


@every_device
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_sums_match_on_the_device_and_in_the_precision_of_the_model(device, dtype):
    model, X, R, lengths = setting(device, dtype)
    explainer = deepshap.DeepExplainer(model, R, progress=False)
    explanation = explainer(X, additional_forward_args=(lengths,))
    with torch.no_grad(), full_float32():  # cuDNN would round to TF32
        outputs = model.eval()(X, lengths).double().cpu().numpy()
    found = explanation.values.sum((1, 2), dtype=np.float64) + explanation.base_values
    assert np.abs(found - outputs).max() <= TOLERANCE[dtype] * np.abs(outputs).max()
    assert next(model.parameters()).device.type == device


@every_device
def test_devices_and_precisions_agree(device):
    wanted = explained("cpu", torch.float64)
    assert np.abs(explained(device, torch.float64) - wanted).max() <= 1e-9 * np.abs(wanted).max()
    assert np.abs(explained(device, torch.float32) - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.abs(explained(device, torch.float16) - wanted).max() <= 0.05 * np.abs(wanted).max()


def explained(device: str, dtype: torch.dtype) -> np.ndarray:
    model, X, R, lengths = setting(device, dtype)
    return deepshap.DeepExplainer(model, R, progress=False).shap_values(X, additional_forward_args=(lengths,))


@every_device
def test_arrays_and_tensors_elsewhere_are_brought_to_the_model(device):
    model, X, R, lengths = setting(device, torch.float32)
    wanted = deepshap.DeepExplainer(model, R, progress=False).shap_values(X, additional_forward_args=(lengths,))
    explainer = deepshap.DeepExplainer(model, R.cpu().numpy(), progress=False)
    assert np.array_equal(explainer.shap_values(X.cpu(), additional_forward_args=(lengths,)), wanted)


@every_device
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_recurrent_layers_on_the_device(device, kind, monkeypatch):
    """Numba's kernels on the processor, Triton's on a GPU, which is not waited for at any step."""
    runs, level = [], fused._Block._level

    def watched(*arguments):
        runs.append(arguments)
        with not_waiting(device):
            level(*arguments)

    monkeypatch.setattr(fused.THRESHOLD, "threshold", 0)
    monkeypatch.setattr(fused._Block, "_level", watched)
    model = built(Recurrent(kind, "all", "computed", **DEEP))
    X, R = drawn(2, 4, 3, seed=1), drawn(3, 4, 3, seed=2)
    wanted = [np.mean([oracle_values(model, x, r) for r in R], 0) for x in X]
    found = deepshap.DeepExplainer(model.to(device), R.to(device), progress=False).shap_values(X.to(device))
    assert_close(found, np.stack(wanted))
    assert runs


@contextmanager
def not_waiting(device: str):
    if device == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")

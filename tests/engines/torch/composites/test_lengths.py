"""Packed sequences whose lengths the model finds in its input, as classifiers of texts count the ids that are no padding."""

from __future__ import annotations

import inspect

import pytest
import torch
from helpers import assert_close, built, values
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import deepshap

IDS = torch.tensor([[5, 2, 9, 4, 0], [3, 6, 0, 0, 0], [2, 5, 7, 8, 0], [9, 0, 0, 0, 0], [7, 2, 4, 3, 6]])


class Reader(nn.Module):
    """Ends with the last states, all of them, or with the mean output of the steps."""

    def __init__(self, layer: nn.RNNBase, ends: bool) -> None:
        super().__init__()
        self.embedding, self.layer, self.ends = nn.Embedding(10, 3, padding_idx=0), layer, ends

    def forward(self, ids: Tensor) -> Tensor:
        first, lengths = self.layer.batch_first, (ids != 0).sum(1)
        steps = self.embedding(ids) if first else self.embedding(ids.T)
        packed = pack_padded_sequence(steps, lengths.cpu(), batch_first=first, enforce_sorted=False)
        output, last = self.layer(packed)
        if self.ends:
            states = last if isinstance(last, tuple) else (last,)
            return torch.cat([s.transpose(0, 1).flatten(1) for s in states], 1)
        output = PackedSequence(output.data.square(), *output[1:])
        steps, counted = pad_packed_sequence(output, batch_first=first, padding_value=2.0)
        return (steps - 2).sum(1 if first else 0) / counted[:, None]


LAYERS = {
    "LSTM": lambda: nn.LSTM(3, 4, batch_first=True),
    "LSTM, deep, both ways": lambda: nn.LSTM(3, 2, 2, bidirectional=True, bias=False),
    "GRU, both ways": lambda: nn.GRU(3, 2, batch_first=True, bidirectional=True),
    "RNN": lambda: nn.RNN(3, 3, 2, nonlinearity="relu"),
}


@pytest.mark.parametrize("ends", [True, False], ids=["last states", "outputs"])
@pytest.mark.parametrize("name", LAYERS)
def test_references_of_the_same_length_count_as_if_they_were_alone(name, ends):
    """Beside them alone lengths do not differ, and the layer is one operation."""
    model = built(Reader(LAYERS[name](), ends))
    x, same, others = IDS[[0]], IDS[[2]], IDS[[1, 3, 4]]
    together, different, alone = (values(model, x, r) for r in (torch.cat([others, same]), others, same))
    assert_close(together * 4 - different * 3, alone)


def test_states_behind_the_end_stay_as_they_are():
    model = built(Reader(nn.GRU(3, 2, batch_first=True), ends=True))

    def by_hand(ids: Tensor) -> Tensor:
        (w, u, b, v), h = model.layer._flat_weights, torch.zeros(len(ids), 2, dtype=torch.float64)
        for t in range(ids.shape[1]):
            r, z, n = (model.embedding(ids[:, t]) @ w.T + b).chunk(3, -1)
            r_h, z_h, n_h = (h @ u.T + v).chunk(3, -1)
            z = torch.sigmoid(z + z_h)
            new = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * h
            h = torch.where((t < (ids != 0).sum(1))[:, None], new, h)
        return h

    x, r = IDS[:3], IDS[3:]
    found = values(model, x, r)
    assert_close(found.sum(1), (by_hand(x) - by_hand(r).mean(0)).detach().numpy())
    assert_close(found, values(by_hand, x, r))


def test_rows_that_the_model_sorts_by_length_are_refused_with_what_to_do():
    model = built(Reader(nn.GRU(3, 2, batch_first=True), ends=True))

    def by_itself(ids: Tensor) -> Tensor:
        lengths, order = (ids != 0).sum(1).sort(descending=True)
        packed = pack_padded_sequence(model.embedding(ids)[order], lengths, batch_first=True)
        return model.layer(packed)[1][0][order.argsort()]

    with pytest.raises(deepshap.ControlFlowError, match=r"pack_padded_sequence .*py:.* \(enforce_sorted=False\)"):
        values(by_itself, IDS[:2], IDS[2:])


def test_projections_are_refused_with_what_to_do():
    model = built(Reader(nn.LSTM(3, 4, proj_size=2, batch_first=True), ends=True))
    line = inspect.getsourcelines(Reader.forward)[1] + 3
    with pytest.raises(deepshap.ControlFlowError, match=rf"lengths of pack_padded_sequence .*py:{line}.* torch.where"):
        values(model, IDS[:2], IDS[2:])

"""Forward runs of recurrent layers: what each step leaves, against the mathematics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepshap.engines.torch.recurrent import cells, sequence
from deepshap.formulas.cells import Weights, run

CLOSE = {"rtol": 1e-5, "atol": 1e-6, "check_dtype": False}


@pytest.mark.parametrize("few", [0, 10**6], ids=["step by step", "all steps at once"])
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_what_the_steps_of_an_lstm_leave(monkeypatch, few, backwards, bias):
    """Of few rows torch's own layer tells the states."""
    torch.manual_seed(0)
    monkeypatch.setattr(sequence, "FEW_UNITS", few)
    own = nn.LSTM(3, 5, bias=bias)
    weights = Weights(*(p.detach() for p in own.parameters()))
    x, states = torch.randn(7, 2, 3), [torch.randn(2, 5) for _ in range(2)]
    level, given = sequence.Level(cells.LSTM, weights, backwards), [s[None] for s in states]
    with torch.no_grad():
        output, last, memory = sequence.run([[level]], x.flatten(0, 1), given, sequence.Steps((2,) * 7))
    order = list(level.order(7))
    wide = Weights(*(w if w is None else w.double() for w in weights))
    wanted = run(cells.LSTM, [x[t].double() for t in order], [s.double() for s in states], wide)
    found = memory.traces[0].columns(level)
    for t, columns in zip(order, wanted, strict=True):
        for name, values in columns.items():
            torch.testing.assert_close(found[t][name], values, **CLOSE)
    torch.testing.assert_close(last[1][0], wanted[-1]["c"], **CLOSE)
    torch.testing.assert_close(last[0][0], output[2 * order[-1] : 2 * order[-1] + 2], **CLOSE)
    after = [columns["a"].chunk(4, -1)[3] * columns["tanh_c"] for columns in wanted]
    for t, h in zip(order, after, strict=True):
        torch.testing.assert_close(output[2 * t : 2 * t + 2], h, **CLOSE)

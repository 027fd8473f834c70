"""Models that the command line makes by name: ``deepshap explain cli_models:Forecast ...``."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import deepshap


class Forecast(nn.Module):
    """An LSTM over (rows, steps, 2)."""

    def __init__(self, hidden=4):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(2, hidden, batch_first=True), nn.Linear(hidden, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Likely(Forecast):
    """Probabilities of three classes."""

    def forward(self, x):
        return super().forward(x).softmax(-1)


class Hugging(Forecast):
    """Returns a dict with one tensor in it."""

    def forward(self, x):
        return {"loss": None, "logits": super().forward(x)}


class Ragged(Forecast):
    """Reads as many steps as a row has."""

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


class TimeFirst(Forecast):
    """Takes (steps, rows, 2)."""

    def forward(self, x):
        return super().forward(x.transpose(0, 1))


class Bessel(Forecast):
    """Uses a function without a rule."""

    def forward(self, x):
        return torch.special.bessel_j1(super().forward(x))


class Square(torch.autograd.Function):
    """A square, of which the model below claims that it is linear."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2 * ctx.saved_tensors[0]


class Wrong(Forecast):
    """Has a rule that is wrong."""

    def forward(self, x):
        deepshap.register_rule(Square, "linear")
        return Square.apply(super().forward(x)) + 1


class Row(nn.Module):
    """A table of three columns in, one number out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))

    def forward(self, x):
        return self.net(x)[:, 0]


class Words(nn.Module):
    """Token ids in, two classes and something else out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.embedding, self.lstm = nn.Embedding(6, 4), nn.LSTM(4, 2, batch_first=True)

    def forward(self, ids):
        states = self.lstm(self.embedding(ids))[0]
        return {"states": states, "scores": states[:, -1]}


class Both(nn.Module):
    """A sequence and a row."""

    def __init__(self):
        super().__init__()
        self.series, self.row = Forecast(), nn.Linear(3, 3)

    def forward(self, series, row):
        return torch.tanh(self.series(series) + self.row(row))


def plain_function():
    return lambda x: x.sum(1)

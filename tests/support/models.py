"""The models of the case table, and tensors that do not depend on the input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

TOKENS = 7


def fixed(like: Tensor, *shape: int) -> Tensor:
    """Return a constant of a shape, neither random nor regular, in the dtype of another tensor."""
    values = np.cos(1.7 * np.arange(1, math.prod(shape) + 1)).reshape(shape)
    return torch.as_tensor(values, dtype=like.dtype)


def heads(x: Tensor, number: int) -> Tensor:
    """Split the first two features of as many heads off a sequence."""
    return x[..., : 2 * number].unflatten(-1, (number, 2)).transpose(1, 2)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of four query heads to two key heads."""
    return F.scaled_dot_product_attention(heads(q, 4), heads(k, 2), heads(v, 2), enable_gqa=True)


class Attention(nn.Module):
    """``nn.MultiheadAttention`` as self- or cross-attention."""

    def __init__(self, cross: bool = False, both: bool = False, call: Any = None, **options: Any):
        super().__init__()
        self.cross, self.both, self.call = cross, both, call or {}
        self.layer = nn.MultiheadAttention(4, 2, **options)

    def forward(self, x: Tensor) -> Tensor:
        first = x if self.layer.batch_first else x.transpose(0, 1)
        key = first.flip(-1) if self.cross else first
        key, value = key[..., : self.layer.kdim], first[..., : self.layer.vdim]
        call = {k: v(x) if callable(v) else v for k, v in self.call.items()}
        result, weights = self.layer(first, key, value, **call)
        result = result if self.layer.batch_first else result.transpose(0, 1)
        return torch.cat([result.flatten(1), weights.flatten(1)], 1) if self.both else result


def ids(x: Tensor, *values: int) -> Tensor:
    """Return the same indices for every row."""
    return torch.tensor([values]).expand(len(x), -1)


def nothing(x: Tensor) -> Tensor:
    """Return a zero that depends on the input."""
    return (0 * x).sum()


def parts(z: Tensor) -> Tensor:
    """Return real and imaginary parts."""
    return torch.view_as_real(z.resolve_conj())


def each(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Apply a function to each row."""
    return lambda *operands: torch.stack([function(*row) for row in zip(*operands, strict=True)])


def grid(x: Tensor) -> Tensor:
    """Return a sampling grid."""
    return fixed(x, 1, 2, 3, 2).expand(len(x), -1, -1, -1)


def affine_grid(x: Tensor) -> Tensor:
    """Return an affine sampling grid."""
    return F.affine_grid(fixed(x, 1, 2, 3).expand(len(x), -1, -1), list(x.shape), align_corners=True)


def padding(x: Tensor) -> Tensor:
    """Mask the last step."""
    return torch.arange(x.shape[1]).expand(len(x), -1) >= x.shape[1] - 1


def causal(x: Tensor) -> Tensor:
    """Mask the future."""
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)


class Masked(nn.Module):
    """A layer called with fixed keyword arguments."""

    def __init__(self, layer: nn.Module, **call: Callable[[Tensor], Any]):
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, **{k: v(x) for k, v in self.call.items()})


class Decoding(nn.Module):
    """A transformer decoder (or whole transformer) that reads and attends to two views of one input."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, :2], x.flip(-1))


def encoder_layer(**options: Any) -> nn.Module:
    """Return a small encoder layer."""
    return nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, **options)


def encoder(**options: Any) -> nn.Module:
    """Return two encoder layers."""
    return nn.TransformerEncoder(encoder_layer(**options), 2, enable_nested_tensor=False)


def decoder_layer(**options: Any) -> nn.Module:
    """Return a small decoder layer."""
    return nn.TransformerDecoderLayer(4, 2, 6, batch_first=True, **options)


class Additive(nn.Module):
    """Bahdanau attention over an encoded sequence."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.score = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        energy = self.score(torch.tanh(self.query(x[:, -1:]) + self.key(x))).squeeze(-1)
        return torch.bmm(energy.softmax(1).unsqueeze(1), x).squeeze(1)


class DotAttention(nn.Module):
    """Single-head attention by hand."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(4, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(-2, -1) / math.sqrt(3)
        return F.softmax(scores, dim=-1) @ self.value(x)


class TokenMasked(nn.Module):
    """Token ids, with attention and mean masked where the id is 0."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(TOKENS, 4, padding_idx=0)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        kept = ids != 0
        x = self.embed(ids)
        x, _ = self.attend(x, x, x, need_weights=False)
        return (x * kept.unsqueeze(-1)).sum(1) / kept.sum(1, keepdim=True).clamp(min=1)


class TokenScores(nn.Module):
    """Attention by hand whose scores are masked by the token ids."""

    def __init__(self):
        super().__init__()
        self.embed, self.score = nn.Embedding(TOKENS, 4), nn.Linear(4, 1)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        scores = self.score(x).squeeze(-1).masked_fill(ids == 0, -1e9)
        return (scores.softmax(1).unsqueeze(-1) * x).sum(1)


class TokenTransformer(nn.Module):
    """A transformer whose padding mask, and whose mean, are computed from the token ids."""

    def __init__(self):
        super().__init__()
        self.embed, self.encoder = nn.Embedding(TOKENS, 4, padding_idx=0), encoder()

    def forward(self, ids: Tensor) -> Tensor:
        padded = ids == 0
        x = self.encoder(self.embed(ids), src_key_padding_mask=padded)
        return x.masked_fill(padded[..., None], 0).sum(1) / (~padded).sum(1, keepdim=True)


class TokenInfinity(TokenScores):
    """Attention by hand whose scores are -inf where the token id is 0."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        weights = self.score(x).squeeze(-1).masked_fill(ids == 0, -math.inf).softmax(1)
        return torch.einsum("nt,ntf->nf", weights, x)


class Symmetric(nn.Module):
    """A parametrisation of square weights."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


def symmetric() -> nn.Module:
    """Return a layer with a parametrised weight."""
    layer = nn.Linear(4, 4)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return Chain(layer, nn.Sigmoid())


class Unpool(nn.Module):
    """Averages put back at fixed positions, one of every block of two."""

    def __init__(self, axes: int):
        super().__init__()
        self.average = [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d][axes - 1]
        self.unpool = [nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d][axes - 1](2)

    def forward(self, x: Tensor) -> Tensor:
        small = self.average(x, 2)
        positions = torch.arange(small[0, 0].numel()).reshape(small.shape[2:]).expand(small.shape)
        return self.unpool(small, 2 * positions + 1)


class OneHot(nn.Module):
    """One-hot tokens, summed over the steps so far."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(TOKENS, 2))

    def forward(self, ids: Tensor) -> Tensor:
        return F.one_hot(ids, TOKENS).to(self.weight.dtype).cumsum(1) @ self.weight


class FixedIds(nn.Module):
    """An embedding looked up at ids that do not depend on the input."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(-1) * self.positions(torch.arange(x.shape[1]))


class Twice(nn.Module):
    """A layer of two operands, fed with two views of the input."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.first, self.second = layer, nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.first(x), self.second(x))


DEEP: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
KINDS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "LSTM": (nn.LSTM, {}),
    "GRU": (nn.GRU, {}),
    "RNN": (nn.RNN, {}),
    "RNN, relu": (nn.RNN, {"nonlinearity": "relu"}),
}


class Recurrent(nn.Module):
    """A recurrent layer: which of its results is used, and where its initial state comes from."""

    def __init__(self, kind: str, use: str = "output", start: str = "zeros", units: int = 2, **options: Any):
        super().__init__()
        layer, own = KINDS[kind]
        self.layer = layer(3, units, **{"batch_first": True, **own, **options})
        self.use, self.start = use, start
        copies = self.layer.num_layers * (2 if self.layer.bidirectional else 1)
        self.sizes = [(copies, self.layer.proj_size or units), (copies, units)][: 2 if kind == "LSTM" else 1]
        self.begin = nn.ParameterList(torch.randn(copies, 1, size) for copies, size in self.sizes)
        self.encode = nn.ModuleList(nn.Linear(3, copies * size) for copies, size in self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        given = x if self.layer.batch_first else x.transpose(0, 1)
        output, state = self.layer(given) if self.start == "zeros" else self.layer(given, self.initial(x))
        output = output if self.layer.batch_first else output.transpose(0, 1)
        states = state if isinstance(state, tuple) else (state, state)
        parts = {"output": output, "h_n": states[0].transpose(0, 1), "c_n": states[1].transpose(0, 1)}
        if self.use == "all":
            return torch.cat([part.flatten(1) for part in parts.values()], 1)
        return output[:, -1] if self.use == "last" else parts[self.use]

    def initial(self, x: Tensor) -> Any:
        """Return the initial state, as the layer takes it."""
        states = tuple(self.first(i, x, *size) for i, size in enumerate(self.sizes))
        return states if len(states) == 2 else states[0]

    def first(self, i: int, x: Tensor, copies: int, size: int) -> Tensor:
        """Return one of the initial states: given, learned or computed from the input."""
        if self.start == "constant":
            return fixed(x, copies, 1, size).expand(-1, len(x), -1).contiguous()
        if self.start == "learned":
            return self.begin[i].repeat(1, len(x), 1)
        return self.encode[i](x[:, 0]).view(len(x), copies, size).transpose(0, 1).contiguous()


class Cells(nn.Module):
    """A loop over ``nn.LSTMCell``, ``nn.GRUCell`` or ``nn.RNNCell``."""

    def __init__(self, cell: nn.Module, collect: bool = False, given: bool = True):
        super().__init__()
        self.cell, self.collect, self.given = cell, collect, given

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), 2, dtype=x.dtype)
        state = ((h, h) if isinstance(self.cell, nn.LSTMCell) else h) if self.given else None
        outputs = []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs, 1) if self.collect else outputs[-1]


class HandLSTM(nn.Module):
    """An LSTM with one ``nn.Linear`` of all gates."""

    def __init__(self, features: int = 3, units: int = 2):
        super().__init__()
        self.units = units
        self.input, self.hidden = nn.Linear(features, 4 * units), nn.Linear(units, 4 * units)

    def gates(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        """Return the gates before their activations, in torch's order: input, forget, cell, output."""
        return (self.input(x) + self.hidden(h)).chunk(4, 1)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next hidden and cell state."""
        i, f, g, o = self.gates(x, h, c)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), self.units)
        outputs = []
        for t in range(x.size(1)):
            h, c = self.step(x[:, t], h, c)
            outputs.append(h)
        return torch.stack(outputs, dim=1)


class PeepholeLSTM(HandLSTM):
    """Gates that see the cell state."""

    def __init__(self):
        super().__init__()
        self.peep = nn.Parameter(torch.randn(3, 2))

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = self.gates(x, h, c)
        i, f = torch.sigmoid(i + self.peep[0] * c), torch.sigmoid(f + self.peep[1] * c)
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(o + self.peep[2] * c) * torch.tanh(c), c


class NormalisedLSTM(HandLSTM):
    """Layer norm before the gates and on the cell state."""

    def __init__(self):
        super().__init__()
        self.before, self.inside = nn.LayerNorm(8), nn.LayerNorm(2)

    def gates(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return self.before(self.input(x) + self.hidden(h)).chunk(4, 1)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = self.gates(x, h, c)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * self.inside(c).tanh(), c


class SeparateGates(HandLSTM):
    """One ``nn.Linear`` per gate, on the concatenated input and state."""

    def __init__(self):
        super().__init__()
        self.separate = nn.ModuleList(nn.Linear(5, 2) for _ in range(4))

    def gates(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return tuple(gate(torch.cat([x, h], 1)) for gate in self.separate)


class HandGRU(nn.Module):
    """torch's GRU by hand."""

    def __init__(self):
        super().__init__()
        self.input, self.hidden = nn.Linear(3, 6), nn.Linear(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), 2, dtype=x.dtype)
        for t in range(x.shape[1]):
            (xr, xz, xn), (hr, hz, hn) = self.input(x[:, t]).chunk(3, -1), self.hidden(h).chunk(3, -1)
            z = (xz + hz).sigmoid()
            n = torch.tanh(xn + (xr + hr).sigmoid() * hn)
            h = (1 - z) * n + z * h
        return h


class MinimalGated(nn.Module):
    """A minimal gated unit."""

    def __init__(self):
        super().__init__()
        self.forget, self.candidate = nn.Linear(5, 2), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros((x.shape[0], 2))
        for step in x.transpose(0, 1):
            f = torch.sigmoid(self.forget(torch.cat((step, h), dim=-1)))
            h = torch.lerp(h, torch.tanh(self.candidate(torch.cat((step, f * h), dim=-1))), f)
        return h


class ConvLSTM(nn.Module):
    """A convolutional LSTM over a short film."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), 2, *x.shape[-2:])
        for t in range(x.shape[1]):
            i, f, o, g = torch.split(self.conv(torch.cat([x[:, t], h], dim=1)), 2, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h.mean((2, 3))


class Last(nn.Module):
    """The last step."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


def lstm() -> nn.Module:
    """Return a small LSTM."""
    return nn.LSTM(3, 2, batch_first=True)


class Swap(nn.Module):
    """Exchange the axes of channels and steps."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class AttentiveLSTM(nn.Module):
    """Attention pooling over an LSTM's output."""

    def __init__(self):
        super().__init__()
        self.lstm, self.attend = nn.LSTM(3, 2, bidirectional=True, batch_first=True), Additive()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attend(self.lstm(x)[0]))


class Seq2Seq(nn.Module):
    """An encoder, and a decoder that reads its own predictions."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(3, 2, batch_first=True), nn.LSTMCell(1, 2)
        self.head = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, c) = self.encoder(x)
        h, c, y, predictions = h[0], c[0], x[:, -1, :1], []
        for _ in range(3):
            h, c = self.decoder(y, (h, c))
            y = self.head(h)
            predictions.append(y)
        return torch.cat(predictions, 1)


class Windows(nn.Module):
    """An LSTM over a flat window of features, as tabular pipelines hand it over."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 2, batch_first=True), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.view(-1, 4, 3))[0][:, -1])


class Packed(nn.Module):
    """A recurrent layer over packed sequences, with the lengths as an additional argument."""

    def __init__(self, kind: str, use: str = "h_n", sort: bool = False, **options: Any):
        super().__init__()
        layer, own = KINDS[kind]
        self.layer = layer(3, 2, **{"batch_first": True, **own, **options})
        self.use, self.sort = use, sort

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        first = self.layer.batch_first
        x = x if first else x.transpose(0, 1)
        packed = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=self.sort)
        output, state = self.layer(packed)
        if self.use == "h_n":
            return (state[0] if isinstance(state, tuple) else state).transpose(0, 1)
        padded, kept = pad_packed_sequence(output, batch_first=True, total_length=x.shape[1 if first else 0])
        return padded if self.use == "output" else padded.sum(1) / kept.to(x.dtype).unsqueeze(1)


class MaskedMean(nn.Module):
    """The mean of an LSTM's output over the steps that a mask keeps."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 2, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        output = self.lstm(x)[0] * mask.unsqueeze(-1)
        return output.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


class LastValid(nn.Module):
    """The output of a GRU at each row's last valid step."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 2, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        output = self.gru(x)[0]
        return output[torch.arange(len(x)), lengths - 1]


class TokenLSTM(nn.Module):
    """Token ids, embedded, through an LSTM, packed or not."""

    def __init__(self, packed: bool = False):
        super().__init__()
        self.embed = nn.Embedding(TOKENS, 3, padding_idx=0)
        self.encoder = Packed("LSTM") if packed else Recurrent("LSTM", "last")

    def forward(self, ids: Tensor, *lengths: Tensor) -> Tensor:
        return self.encoder(self.embed(ids), *lengths)


class Chain(nn.Sequential):
    """``nn.Sequential`` that takes the output of recurrent layers."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            result = layer(x)
            x = result[0] if isinstance(result, tuple) else result
        return x


class Sum(nn.Module):
    """Sum of each row."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1)


class Residual(nn.Module):
    """A residual block of convolutions, with one activation module used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(2), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        y = self.second(self.relu(y))
        y += x
        return self.relu(y)


class Causal(nn.Module):
    """A block of a temporal convolutional network."""

    def __init__(self, dilation: int):
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv1d(2, 2, 2, padding=dilation, dilation=dilation))
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + F.relu(self.conv(x)[..., : -self.dilation]))


class Checkpointed(nn.Module):
    """Activations computed once more in the backward pass."""

    def __init__(self, reentrant: bool):
        super().__init__()
        self.layer, self.reentrant = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layer, x, use_reentrant=self.reentrant)


class Likelihood(nn.Module):
    """Parameters of a normal distribution, and the likelihood of a value under it."""

    def __init__(self):
        super().__init__()
        self.mean, self.spread = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        normal = torch.distributions.Normal(self.mean(x), F.softplus(self.spread(x)), validate_args=True)
        return normal.log_prob(torch.zeros(2, dtype=x.dtype)) + normal.entropy()


class Reused(nn.Module):
    """One module applied three times."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(self.layer(x)) * x)


class Remembering(nn.Module):
    """Keeps its hidden state and its last input as attributes."""

    def __init__(self):
        super().__init__()
        self.gru, self.seen = nn.GRU(3, 2, batch_first=True), None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        output, self.seen = self.gru(x)
        return output[:, -1] + self.seen[0].tanh()


class Inputs(nn.Module):
    """Several inputs."""

    def __init__(self):
        super().__init__()
        self.lstm, self.static = nn.LSTM(3, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, series: Tensor, static: Tensor, scale: float = 1.0) -> Tensor:
        return torch.tanh(self.lstm(series)[0][:, -1] * self.static(static) * scale)


class Outputs(nn.Module):
    """A dict of outputs."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.linear(x)
        return {"logits": y, "probabilities": y.softmax(1)}


class Highway(nn.Module):
    """A highway layer."""

    def __init__(self):
        super().__init__()
        self.gate, self.layer = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * F.relu(self.layer(x)) + (1 - gate) * x


class Mixture(nn.Module):
    """A soft mixture of experts."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(4, 3), nn.ModuleList(nn.Linear(4, 2) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(-1)
        return torch.einsum("ne,neo->no", weights, torch.stack([e(x).relu() for e in self.experts], 1))


class Hyper(nn.Module):
    """A network whose weights another one computes from the input."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.weights(x).view(-1, 3, 4), x.unsqueeze(-1)).squeeze(-1).tanh()


class Positional(nn.Module):
    """A transformer over token ids, with positions and a classification head."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(TOKENS, 4), nn.Embedding(5, 4)
        self.encoder, self.head = encoder_layer(), nn.Linear(4, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(self.encoder(x).mean(1))


class Mixer(nn.Module):
    """An MLP mixer block."""

    def __init__(self):
        super().__init__()
        self.tokens, self.channels = nn.Linear(3, 3), nn.Linear(4, 4)
        self.norms = nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])

    def forward(self, x: Tensor) -> Tensor:
        x = x + F.gelu(self.tokens(self.norms[0](x).mT)).mT
        return x + F.gelu(self.channels(self.norms[1](x)))


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.conv, self.excite = nn.Conv2d(2, 3, 2), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        scale = torch.sigmoid(self.excite(F.adaptive_avg_pool2d(y, 1).flatten(1)))
        return (y * scale[:, :, None, None]).amax((2, 3))

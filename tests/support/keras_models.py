"""Models of Keras' layers, one line each, and the rows to explain them on.

The same table serves both backends on which Keras models are explained: TensorFlow and, under ``KERAS_BACKEND=torch``,
PyTorch. Models that need TensorFlow itself are in ``tensorflow_models.py``. Weights are drawn with NumPy, so that a model
is the same under either. Nothing here knows of pytest or of the engines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import Sequential, ops, tree
from keras import layers as L

ROWS, REFERENCES = 2, 3
TOKENS = 7
STEPS = 4
SEQUENCE, IMAGE, FILM = (STEPS, 3), (5, 4, 2), (2, 5, 4, 2)
TORCH = os.environ.get("KERAS_BACKEND") == "torch"


@dataclass(frozen=True)
class Case:
    """A model and what it is explained on.

    ``shapes`` are the shapes of its inputs' rows; ``kind`` says what the rows hold: "real" numbers, "tokens" (ids, 0 where
    the sequence is over) or "padded" (real numbers, zeros where the sequence is over). ``widest`` is the widest dtype in which
    the layers compute everywhere.
    """

    name: str
    build: Callable[[], Any]
    shapes: tuple[tuple[int, ...], ...]
    kind: str = "real"
    output: Any = None
    widest: str = "float64"

    def model(self, dtype: str) -> Any:
        """Build the model with drawn weights."""
        with precision(dtype):
            model = self.build()
            model(self.rows(1, 0, dtype), training=False)
            draw_weights(model)
        return model

    def rows(self, number: int, seed: int, dtype: str) -> Any:
        """Draw rows: one array, or a list of them."""
        drawn = [draw_rows(number, shape, self.kind, seed + 10 * i, dtype) for i, shape in enumerate(self.shapes)]
        return drawn if len(drawn) > 1 else drawn[0]


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Let Keras compute in a dtype."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def draw_weights(model: Any, seed: int = 0) -> None:
    """Give a model weights that are drawn in the order in which Keras lists them."""
    generator = np.random.default_rng(seed)
    for weight in (*model.weights, *kept_states(model)):
        if "float" not in weight.dtype:
            continue
        values = generator.normal(scale=0.7, size=weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)


def kept_states(model: Any) -> list[Any]:
    """The states of stateful layers, which Keras does not count among the weights."""
    return [state for layer in model._flatten_layers() for state in tree.flatten(vars(layer).get("states") or [])]


def draw_rows(number: int, shape: tuple[int, ...], kind: str, seed: int, dtype: str) -> np.ndarray:
    """Draw rows; of padded ones and of tokens the first row is as long as can be, and each next one a step shorter."""
    generator = np.random.default_rng(seed + 1)
    over = np.arange(shape[0]) >= shape[0] - np.arange(number)[:, None] % shape[0]
    if kind == "tokens":
        ids = generator.integers(1, TOKENS, (number, *shape))
        return np.where(over.reshape(number, shape[0], *[1] * (len(shape) - 1)), 0, ids)
    values = generator.normal(size=(number, *shape))
    if kind == "padded":
        values[over] = 0
    return values.astype(dtype)


# ---------------------------------------------------------------------- cells and layers by hand
class MinimalGatedCell(L.Layer):
    """A recurrent cell with one gate, as users write them."""

    def __init__(self, units: int, **options: Any):
        super().__init__(**options)
        self.units = self.state_size = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1] + self.units, 2 * self.units))

    def call(self, inputs: Any, states: Any) -> Any:
        (h,) = states
        gate, candidate = ops.split(ops.matmul(ops.concatenate([inputs, h], -1), self.kernel), 2, -1)
        forget = ops.sigmoid(gate)
        h = forget * h + (1 - forget) * ops.tanh(candidate)
        return h, [h]


class PeepholeCell(L.Layer):
    """An LSTM cell whose gates see the cell state, with layer norm inside."""

    def __init__(self, units: int, **options: Any):
        super().__init__(**options)
        self.units, self.state_size, self.output_size = units, [units, units], units
        self.gates, self.norm = L.Dense(4 * units), L.LayerNormalization()

    def build(self, shape: Any) -> None:
        self.gates.build((None, shape[-1] + self.units))
        self.norm.build((None, self.units))
        self.peep = self.add_weight(shape=(3, self.units))

    def call(self, inputs: Any, states: Any) -> Any:
        h, c = states
        i, f, g, o = ops.split(self.gates(ops.concatenate([inputs, h], -1)), 4, -1)
        i, f = ops.sigmoid(i + self.peep[0] * c), ops.sigmoid(f + self.peep[1] * c)
        c = f * c + i * ops.tanh(g)
        h = ops.sigmoid(o + self.peep[2] * c) * ops.tanh(self.norm(c))
        return h, [h, c]


class HandLSTM(L.Layer):
    """A Python loop over the steps."""

    def __init__(self, units: int):
        super().__init__()
        self.cell = L.LSTMCell(units)

    def call(self, x: Any) -> Any:
        h = c = ops.zeros((ops.shape(x)[0], self.cell.units), dtype=x.dtype)
        for t in range(x.shape[1]):
            _, (h, c) = self.cell(x[:, t], [h, c])
        return h


class SingleStep(keras.Model):
    """One step of a cell on [x, h, c] in one vector; the new cell state."""

    def __init__(self, features: int, units: int):
        super().__init__()
        self.cell, self.cuts = L.LSTMCell(units), [features, features + units]

    def call(self, inputs: Any) -> Any:
        x, h, c = ops.split(inputs, self.cuts, axis=-1)
        return self.cell(x, [h, c])[1][1]


class Subclassed(keras.Model):
    """A model with a branch, a layer used twice and a nested model."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.dense = L.GRU(4), L.Dense(4, activation="tanh")
        self.inner = Sequential([L.Dense(3, activation="relu"), L.Dropout(0.5), L.Dense(2)])

    def call(self, x: Any, training: bool = False) -> Any:
        h = self.dense(self.recurrent(x))
        return self.inner(self.dense(h) * h, training=training)


class Transformer(L.Layer):
    """An encoder block: attention, residual connections, norms."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = L.MultiHeadAttention(2, 3)
        self.norms = [L.LayerNormalization(), L.LayerNormalization()]
        self.dense = Sequential([L.Dense(6, activation="gelu"), L.Dense(4)])
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        x = self.norms[0](x + self.attend(x, x))
        return self.norms[1](x + self.dense(x))


class Positions(L.Layer):
    """Token and position embeddings, added."""

    def __init__(self, mask_zero: bool = False):
        super().__init__()
        self.tokens, self.positions = L.Embedding(TOKENS, 4, mask_zero=mask_zero), L.Embedding(9, 4)
        self.supports_masking = True

    def call(self, ids: Any) -> Any:
        return self.tokens(ids) + self.positions(ops.arange(ids.shape[1]))

    def compute_mask(self, ids: Any, mask: Any = None) -> Any:
        return self.tokens.compute_mask(ids)


class MaskedMean(L.Layer):
    """The mean over the steps that are not masked, as users write it."""

    def call(self, x: Any, mask: Any = None) -> Any:
        kept = ops.expand_dims(ops.cast(mask, x.dtype), -1)
        return ops.sum(x * kept, 1) / ops.maximum(ops.sum(kept, 1), 1)


# ---------------------------------------------------------------------- models of several layers
def functional(shape: tuple[int, ...], run: Callable[..., Any], *more: tuple[int, ...], **options: Any) -> Any:
    """Return a functional model of one input, or several."""
    inputs = [keras.Input(s, **options) for s in (shape, *more)]
    return keras.Model(inputs if more else inputs[0], run(*inputs))


def sequence(*layers: Any) -> Any:
    """Return a stack over a sequence of real numbers."""
    return Sequential([keras.Input(SEQUENCE), *layers])


def text(*layers: Any, mask_zero: bool = True) -> Any:
    """Return a stack over token ids."""
    return Sequential([keras.Input((STEPS,), dtype="int32"), L.Embedding(TOKENS, 4, mask_zero=mask_zero), *layers])


def image(*layers: Any) -> Any:
    """Return a stack over images."""
    return Sequential([keras.Input(IMAGE), *layers])


def encoder_decoder(x: Any) -> Any:
    """The state of one LSTM is the beginning of another."""
    _, *state = L.LSTM(4, return_state=True)(x)
    return L.Dense(2)(L.LSTM(4, return_sequences=True)(ops.flip(x, 1), initial_state=state))


def attentive(x: Any) -> Any:
    """Bahdanau's attention over a bidirectional LSTM."""
    h = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    return L.Dense(2, activation="softmax")(L.AdditiveAttention()([h[:, -1:], h])[:, 0])


def cnn_lstm_attention(x: Any) -> Any:
    """Convolution, recurrence, attention, mean."""
    h = L.Conv1D(4, 2, activation="relu")(x)
    h = L.LSTM(4, return_sequences=True)(h)
    h = L.MultiHeadAttention(2, 2)(h, h)
    return L.Dense(2)(L.GlobalAveragePooling1D()(h))


def beginnings(cell: Callable[[int], Any], x: Any, start: Any) -> Any:
    """A recurrent layer whose beginning is an input of its own."""
    layer = cell(4)
    return layer(x, initial_state=[start, start] if isinstance(layer, L.LSTM) else start)


def residual(x: Any) -> Any:
    """A residual block with batch norm."""
    y = L.BatchNormalization()(L.Conv2D(2, 3, padding="same")(x))
    y = L.Conv2D(2, 3, padding="same")(L.ReLU()(y))
    return L.GlobalAveragePooling2D()(L.Activation("relu")(L.Add()([x, y])))


def two_outputs(x: Any) -> list[Any]:
    """A regression and a classification."""
    h = L.LSTM(4)(x)
    return [L.Dense(1)(h), L.Dense(3, activation="softmax")(h)]


def merged(layer: Any, both: bool = True) -> Any:
    """Two views of a vector, merged."""
    return functional((4,), lambda x: layer([L.Dense(4)(x), L.Dense(4, activation="tanh")(x)]))


def nested() -> Any:
    """A model in a model in a model."""
    inner = Sequential([keras.Input((4,)), L.Dense(4, activation="tanh")])
    middle = functional(SEQUENCE, lambda x: inner(L.LSTM(4)(x)))
    return functional(SEQUENCE, lambda x: L.Dense(2)(middle(x) + middle(ops.flip(x, 1))))


def pooled(layer: Any) -> Any:
    """Return a pooling layer with windows of two where it has windows."""
    return layer() if "Global" in layer.__name__ else layer(2)


def stateful(kind: Any, **options: Any) -> Any:
    """A layer that goes on where its last call stopped; its state is among the weights that are drawn."""
    return Sequential([keras.Input(batch_shape=(1, *SEQUENCE)), kind(4, stateful=True, **options), L.Dense(2)])


def attention(layer: Any, **call: Any) -> Any:
    """Attention of one half of a sequence's encoding to all of it."""

    def run(x: Any) -> Any:
        h = L.Dense(4)(x)
        return layer(h[:, :2], h, **call) if isinstance(layer, L.MultiHeadAttention) else layer([h[:, :2], h], **call)

    return functional(SEQUENCE, run)


# ---------------------------------------------------------------------- the table
CASES: list[Case] = []


def add(name: str, build: Callable[[], Any], *shapes: tuple[int, ...], **options: Any) -> None:
    """Add a line to the table."""
    CASES.append(Case(name, build, shapes or (SEQUENCE,), **options))


CELLS = {"LSTM": L.LSTM, "GRU": L.GRU, "SimpleRNN": L.SimpleRNN}
for _name, _kind in CELLS.items():
    add(_name, lambda kind=_kind: sequence(kind(4), L.Dense(2)))
    add(f"{_name}, relu", lambda kind=_kind: sequence(kind(3, activation="relu", use_bias=False)))
    add(
        f"{_name}, states",
        lambda kind=_kind: functional(SEQUENCE, lambda x: L.Concatenate()(list(kind(3, return_state=True)(x)))),
    )
    add(f"{_name}, bidirectional", lambda kind=_kind: sequence(L.Bidirectional(kind(3, return_sequences=True))))
    add(f"{_name}, masked", lambda kind=_kind: sequence(L.Masking(), kind(3)), kind="padded")
    add(f"{_name}, tokens", lambda kind=_kind: text(kind(3), L.Dense(2)), (STEPS,), kind="tokens")
add("backwards", lambda: sequence(L.LSTM(3, return_sequences=True, go_backwards=True)))
add("unrolled", lambda: sequence(L.GRU(3, unroll=True)))
add("dropout in a cell", lambda: sequence(L.LSTM(3, dropout=0.5, recurrent_dropout=0.5)))
add("beginning of an LSTM", lambda: functional(SEQUENCE, partial(beginnings, L.LSTM), (4,)), SEQUENCE, (4,))
add("beginning of a GRU", lambda: functional(SEQUENCE, partial(beginnings, L.GRU), (4,)), SEQUENCE, (4,))
add(
    "masked stack",
    lambda: sequence(
        L.Masking(), L.Bidirectional(L.LSTM(3, return_sequences=True)), L.GRU(3, return_sequences=True), L.GRU(2)
    ),
    kind="padded",
)
add("GRU, reset before", lambda: sequence(L.GRU(3, reset_after=False, return_sequences=True)))
add("LSTM, other gates", lambda: sequence(L.LSTM(3, activation="softsign", recurrent_activation="hard_sigmoid")))
add("GRU, other gates", lambda: sequence(L.GRU(3, activation="elu", recurrent_activation="softsign")))
for _mode in ("sum", "mul", "ave", "concat"):
    add(f"merge {_mode}", lambda mode=_mode: sequence(L.Bidirectional(L.LSTM(3), merge_mode=mode)))
add(
    "merge None",
    lambda: functional(
        SEQUENCE, lambda x: L.Subtract()(L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode=None)(x))
    ),
)
add(
    "two kinds of directions",
    lambda: sequence(L.Bidirectional(L.LSTM(3), backward_layer=L.GRU(2, go_backwards=True))),
)
add(
    "stack of three",
    lambda: sequence(L.LSTM(3, return_sequences=True), L.GRU(3, return_sequences=True), L.SimpleRNN(2)),
)
add("zeros where masked", lambda: sequence(
    L.Masking(), L.LSTM(3, return_sequences=True, zero_output_for_mask=True)), kind="padded")  # fmt: skip
for _cell in (L.LSTMCell, L.GRUCell, L.SimpleRNNCell, MinimalGatedCell, PeepholeCell):
    add(f"RNN of {_cell.__name__}", lambda cell=_cell: sequence(L.RNN(cell(3), return_sequences=True)))
add("stacked cells", lambda: sequence(L.RNN([L.LSTMCell(3), L.GRUCell(3), L.SimpleRNNCell(2)])))
add("StackedRNNCells", lambda: sequence(L.RNN(L.StackedRNNCells([L.LSTMCell(3), MinimalGatedCell(2)]))))
add("masked custom cell", lambda: sequence(L.Masking(), L.RNN(MinimalGatedCell(3))), kind="padded")
add("ConvLSTM1D", lambda: Sequential([keras.Input((3, 6, 2)), L.ConvLSTM1D(2, 3), L.Flatten()]), (3, 6, 2))
add("ConvLSTM2D", lambda: Sequential([keras.Input(FILM), L.ConvLSTM2D(2, 2, padding="same")]), FILM)
add(
    "ConvLSTM2D, sequences, strides",
    lambda: Sequential([keras.Input(FILM), L.ConvLSTM2D(2, 2, strides=2, return_sequences=True)]),
    FILM,
)
add("TimeDistributed Dense", lambda: sequence(L.TimeDistributed(L.Dense(3, activation="tanh")), L.LSTM(2)))
add(
    "TimeDistributed Conv2D",
    lambda: Sequential([
        keras.Input(FILM), L.TimeDistributed(L.Conv2D(2, 2, activation="relu")), L.TimeDistributed(L.Flatten()), L.LSTM(2)
    ]),
    FILM,
)  # fmt: skip
add(
    "TimeDistributed LSTM",
    lambda: Sequential([keras.Input((3, 4, 2)), L.TimeDistributed(L.LSTM(3)), L.GRU(2)]),
    (3, 4, 2),
)
add("TimeDistributed, masked", lambda: sequence(
    L.Masking(), L.TimeDistributed(L.Dense(3, activation="relu")), L.LSTM(2)), kind="padded")  # fmt: skip
add("encoder and decoder", lambda: functional(SEQUENCE, encoder_decoder))
add("loop by hand", lambda: sequence(HandLSTM(3)))
add("stateful LSTM", lambda: stateful(L.LSTM))
add("stateful GRU, backwards", lambda: stateful(L.GRU, go_backwards=True))
for _features, _units in ((3, 2), (10, 20), (5, 50), (100, 10)):
    _size = (_features + 2 * _units,)
    add(f"single step {_features}x{_units}", lambda f=_features, u=_units: SingleStep(f, u), _size)

# ------------------------------------------------------------------ masks and tokens
add("tokens, unmasked", lambda: text(L.LSTM(3), mask_zero=False), (STEPS,), kind="tokens")
add("tokens, mean", lambda: text(L.GlobalAveragePooling1D(), L.Dense(2)), (STEPS,), kind="tokens")
add("tokens, mean by hand", lambda: text(MaskedMean(), L.Dense(2)), (STEPS,), kind="tokens")
add("tokens, stack", lambda: text(L.Bidirectional(L.GRU(3, return_sequences=True)), L.LSTM(2)), (STEPS,), kind="tokens")
add("tokens, flat", lambda: text(L.Flatten(), L.Dense(2), mask_zero=False), (STEPS,), kind="tokens")
add(
    "tokens, transformer",
    lambda: functional((STEPS,), lambda i: L.Dense(2)(L.GlobalAveragePooling1D()(Transformer()(Positions()(i)))), dtype="int32"),
    (STEPS,),
    kind="tokens",
)  # fmt: skip
add(
    "tokens, masked transformer",
    lambda: functional(
        (STEPS,),
        lambda i: L.Dense(2)(L.GlobalAveragePooling1D()(Transformer()(Positions(mask_zero=True)(i)))),
        dtype="int32",
    ),
    (STEPS,),
    kind="tokens",
)
add("masked heads", lambda: functional(
    SEQUENCE, lambda x: (lambda h: L.MultiHeadAttention(2, 3)(h, h))(L.Masking()(x))), kind="padded")  # fmt: skip
add("masked heads, causal", lambda: functional(
    SEQUENCE, lambda x: (lambda h: L.MultiHeadAttention(2, 3)(h, h, use_causal_mask=True))(L.Masking()(x))),
    kind="padded")  # fmt: skip
add("masked heads, dropout", lambda: functional(
    SEQUENCE, lambda x: (lambda h: L.MultiHeadAttention(2, 3, dropout=0.5)(h, h))(L.Masking()(x))), kind="padded")  # fmt: skip
add("masked mean", lambda: sequence(L.Masking(), L.GlobalAveragePooling1D(), L.Dense(2)), kind="padded")
add("masked attention", lambda: functional(
    SEQUENCE, lambda x: (lambda h: L.Attention()([h, h]))(L.Masking()(x))), kind="padded")  # fmt: skip
add("masked additive attention", lambda: functional(
    SEQUENCE, lambda x: (lambda h: L.AdditiveAttention()([h, h]))(L.Masking()(x))), kind="padded")  # fmt: skip

# ------------------------------------------------------------------ attention and norms
add("MultiHeadAttention", lambda: attention(L.MultiHeadAttention(2, 3)))
add("MultiHeadAttention, causal", lambda: functional(
    SEQUENCE, lambda x: L.MultiHeadAttention(2, 3, value_dim=2)(x, x, use_causal_mask=True)))  # fmt: skip
add("GroupQueryAttention", lambda: functional(SEQUENCE, lambda x: L.GroupQueryAttention(2, 4, 2)(x, x)))
add("Attention", lambda: attention(L.Attention()))
add("Attention, scaled, causal", lambda: attention(L.Attention(use_scale=True), use_causal_mask=True))
add("Attention, concat", lambda: attention(L.Attention(score_mode="concat")))
add("AdditiveAttention", lambda: attention(L.AdditiveAttention()))
add("attentive LSTM", lambda: functional(SEQUENCE, attentive))
add("transformer", lambda: sequence(L.Dense(4), Transformer(), L.GlobalMaxPooling1D()))
add("CNN-LSTM with attention", lambda: functional(SEQUENCE, cnn_lstm_attention))
add("BatchNormalization", lambda: sequence(L.BatchNormalization(), L.LSTM(2)))
add("LayerNormalization", lambda: sequence(L.LayerNormalization(), L.LSTM(2)))
add("LayerNormalization, two axes", lambda: sequence(L.LayerNormalization(axis=(1, 2)), L.Activation("tanh")))
add("GroupNormalization", lambda: image(L.Conv2D(4, 2), L.GroupNormalization(2)), IMAGE)
add("RMSNormalization", lambda: sequence(L.RMSNormalization()))
add("UnitNormalization", lambda: sequence(L.UnitNormalization()))
add("UnitNormalization, zeros and others", lambda: sequence(L.ReLU(threshold=1.0), L.UnitNormalization()))
add("SpectralNormalization", lambda: sequence(L.SpectralNormalization(L.Dense(3)), L.Activation("tanh")))

# ------------------------------------------------------------------ convolutions and pooling
add("Conv1D", lambda: sequence(L.Conv1D(3, 2, activation="relu"), L.Conv1D(2, 2, padding="causal", dilation_rate=2)))
add("Conv1D, strides, groups", lambda: sequence(L.Conv1D(4, 2), L.Conv1D(4, 2, strides=2, groups=2, activation="gelu")))
add("Conv1DTranspose", lambda: sequence(L.Conv1DTranspose(2, 3, strides=2), L.Activation("tanh")))
add("SeparableConv1D", lambda: sequence(L.SeparableConv1D(3, 2, activation="selu")))
add("DepthwiseConv1D", lambda: sequence(L.DepthwiseConv1D(2), L.Activation("silu")))
add("Conv2D", lambda: image(L.Conv2D(3, 3, activation="relu", padding="same"), L.Flatten(), L.Dense(2)), IMAGE)
add("Conv2DTranspose", lambda: image(L.Conv2DTranspose(2, 2, activation="sigmoid")), IMAGE)
add("SeparableConv2D", lambda: image(L.SeparableConv2D(3, 2, activation="relu")), IMAGE)
add("DepthwiseConv2D", lambda: image(L.DepthwiseConv2D(2, activation="relu")), IMAGE)
add("Conv3D", lambda: Sequential([keras.Input(FILM), L.Conv3D(2, 2, activation="relu"), L.GlobalMaxPooling3D()]), FILM)
add("Conv3DTranspose", lambda: Sequential([keras.Input(FILM), L.Conv3DTranspose(2, 2, activation="tanh")]), FILM)
add("residual block", lambda: functional(IMAGE, residual), IMAGE)
for _axes, _shape in ((1, SEQUENCE), (2, IMAGE), (3, FILM)):
    for _pool in ("MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling"):
        _layer = getattr(L, f"{_pool}{_axes}D")
        add(
            _layer.__name__,
            lambda layer=_layer, shape=_shape: Sequential([keras.Input(shape), pooled(layer), L.Activation("tanh")]),
            _shape,
            widest="float32" if _axes == 3 else "float64",
        )
add("MaxPooling2D, overlapping", lambda: image(L.MaxPooling2D(3, strides=1, padding="same")), IMAGE)
add("AdaptiveAveragePooling2D", lambda: image(L.AdaptiveAveragePooling2D(2), L.Activation("tanh")), IMAGE)
add("AdaptiveMaxPooling1D", lambda: sequence(L.AdaptiveMaxPooling1D(2)))

# ------------------------------------------------------------------ activations
ACTIVATIONS = (
    "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear log_sigmoid log_softmax mish "
    "relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus tanh "
    "tanh_shrink threshold"
)
for _name in ACTIVATIONS.split():
    _function = keras.activations.get(_name)
    _function = partial(_function, threshold=0.3, default_value=-0.5) if _name == "threshold" else _function
    add(f"activation {_name}", lambda function=_function: sequence(L.Dense(4), L.Lambda(function)))
add("activation glu", lambda: sequence(L.Dense(4, activation="glu")))
add("activation gelu, tanh form", lambda: sequence(
    L.Dense(4), L.Lambda(lambda x: keras.activations.gelu(x, approximate=True))))  # fmt: skip
add("LeakyReLU", lambda: sequence(L.LeakyReLU(0.2)))
add("PReLU", lambda: sequence(L.PReLU(shared_axes=[1])))
add("ELU", lambda: sequence(L.ELU(0.7)))
add("ReLU, bounded", lambda: sequence(L.ReLU(max_value=1, negative_slope=0.1, threshold=0.2)))
add("Softmax over steps", lambda: sequence(L.Softmax(axis=1)))

# ------------------------------------------------------------------ merges, shapes, what does nothing
for _layer in (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Concatenate):
    add(_layer.__name__, lambda layer=_layer: merged(layer()), (4,))
add("Dot", lambda: merged(L.Dot(1)), (4,))
add("Dot, normalised", lambda: merged(L.Dot(1, normalize=True)), (4,))
add("Flatten, Reshape, Permute", lambda: sequence(
    L.Permute((2, 1)), L.Flatten(), L.Reshape((6, 2)), L.LSTM(2)))  # fmt: skip
add("RepeatVector", lambda: Sequential([keras.Input((4,)), L.RepeatVector(3), L.LSTM(2)]), (4,))
add("Cropping, ZeroPadding, UpSampling 1D", lambda: sequence(
    L.ZeroPadding1D(1), L.UpSampling1D(2), L.Cropping1D(1), L.GRU(2)))  # fmt: skip
add("Cropping, ZeroPadding, UpSampling 2D", lambda: image(
    L.ZeroPadding2D(1), L.UpSampling2D(2, interpolation="bilinear"), L.Cropping2D(1), L.Conv2D(2, 3, activation="relu"),
), IMAGE, widest="float32")  # fmt: skip
add("EinsumDense", lambda: sequence(L.EinsumDense("abc,cd->abd", (None, 4), activation="relu", bias_axes="d")))
add("Dropout and noise at inference", lambda: sequence(
    L.Dropout(0.5), L.SpatialDropout1D(0.5), L.GaussianNoise(1.0), L.GaussianDropout(0.5), L.AlphaDropout(0.5),
    L.ActivityRegularization(0.1), L.Identity(), L.LSTM(2)))  # fmt: skip
add("Lambda", lambda: sequence(L.Lambda(lambda x: ops.sin(x) * ops.sqrt(ops.abs(x) + 1)), L.LSTM(2)))
add("softmax over logits", lambda: sequence(L.LSTM(4), L.Dense(3, activation="softmax")))

# ------------------------------------------------------------------ preprocessing
add("Normalization", lambda: sequence(L.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 2.0, 1.0]), L.GRU(4)))
add("Rescaling", lambda: sequence(L.Rescaling(0.5, offset=1), L.LSTM(2)))
add("Resizing", lambda: image(L.Resizing(4, 4), L.Conv2D(2, 2, activation="relu")), IMAGE, widest="float32")
add("CenterCrop", lambda: image(L.CenterCrop(4, 4), L.Conv2D(2, 2, activation="relu")), IMAGE)
add("augmentation at inference", lambda: image(
    L.RandomFlip(), L.RandomRotation(0.2), L.RandomZoom(0.2), L.RandomContrast(0.2), L.Conv2D(2, 2, activation="relu"),
), IMAGE, widest="float32")  # fmt: skip
add("Discretization", lambda: Sequential([
    keras.Input((4,)), L.Discretization([-0.5, 0.0, 0.5]), L.Embedding(4, 3), L.LSTM(2)]), (4,))  # fmt: skip
add("CategoryEncoding", lambda: Sequential([
    keras.Input((STEPS,), dtype="int32"), L.CategoryEncoding(TOKENS, output_mode="multi_hot"), L.Dense(2, activation="tanh"),
]), (STEPS,), kind="tokens")  # fmt: skip

# ------------------------------------------------------------------ kinds of models
add("subclassed", Subclassed)
add("nested", nested)
add("two inputs", lambda: functional(
    SEQUENCE, lambda x, y: L.Dense(2)(L.Multiply()([L.LSTM(4)(x), L.Dense(4, activation="tanh")(y)])), (3,)),
    SEQUENCE, (3,))  # fmt: skip
add("second of two outputs", lambda: functional(SEQUENCE, two_outputs), output=1)

"""The operations of TensorFlow that deepshap must explain exactly, one line each.

What PyTorch has too stands in ``both.py``; here is what it has not, or not so: ``alone`` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import linalg, math, nn, raw_ops

from cases.both import SHARED, Shared, absent


@dataclass(frozen=True)
class Case:
    """What an operation is tested with: as ``both.Shared``, in some dtypes."""

    shared: Shared
    dtypes: tuple[str, ...] = ("float64", "float32")

    @property
    def name(self) -> str:
        """Its name."""
        return self.shared.name

    @property
    def smooth(self) -> bool:
        """Whether the gradient is its limit."""
        return self.shared.smooth

    @property
    def in_both(self) -> bool:
        """Whether both engines explain it alike."""
        return not self.shared.alone and not self.shared.differs

    def model(self, dtype: str) -> Callable[[Any], Any]:
        """The function between two maps, on rows (n, 4)."""
        return self.shared.tensorflow_model(dtype)

    def rows(self, number: int, seed: int, dtype: str) -> np.ndarray:
        """Draw rows of the domain."""
        return self.shared.rows(number, seed).astype(dtype)


CASES: list[Case] = [Case(shared) for shared in SHARED if shared.of_tensorflow is not absent]


def op(
    name: str, function: Callable[..., Any], *args: Any, dtypes: tuple[str, ...] = Case.dtypes, **options: Any
) -> None:
    """Add a line."""
    CASES.append(Case(Shared(name, absent, function, *args, alone=_why[-1], **options), dtypes))


_why: list[str] = []  # sections' reasons; the last one holds


def alone(why: str) -> None:
    """Begin a section; why PyTorch is not asked for its cases."""
    _why.append(why)


def image(x: Any, channels: int = 2) -> Any:
    """Rows as images (rows, 3, 2 or so, channels), made of features of all places."""
    return tf.reshape(tf.concat([x, tf.sin(x), tf.roll(x, 1, 1), x * 2], 1), (-1, 4, 3, channels))


KERNEL = np.random.default_rng(5).normal(size=(2, 2, 2, 3))

# ---------------------------------------------------------------------- elementwise
alone("operations of TensorFlow that torch has not, or other forms of both.py's")
op("rint", math.rint, smooth=False)
op("maximum with a constant, broadcast", lambda x: tf.maximum(x[:, None, :], tf.constant([[0.1], [-0.2]], x.dtype)))
op("xdivy", math.xdivy, 2, "positive")
op("finite", lambda x: tf.where(math.is_finite(x) & ~math.is_nan(x) & ~math.is_inf(x), x * x, x))
op("buckets", lambda x: raw_ops.Bucketize(input=x, boundaries=[-0.5, 0.0, 0.5]), smooth=False)
op("to integers and back", lambda x: tf.cast(tf.cast(x * 3, tf.int32) + 1, x.dtype), smooth=False)
op("through float32", lambda x: tf.cast(tf.tanh(tf.cast(x, tf.float32)), x.dtype), dtypes=("float32",))
op("bits", lambda x: tf.bitwise.bitwise_and(tf.cast(tf.abs(x) * 8, tf.int32), 3), smooth=False)

# ---------------------------------------------------------------------- products
alone("operations of TensorFlow that torch has not, or with a constant")
op("product or 0", lambda a, b: math.multiply_no_nan(a, b), 2)
op("quotient or 0", math.divide_no_nan, 2, "positive")
op("einsum with a constant", lambda a: tf.einsum("ni,ij->nj", a, tf.eye(6, dtype=a.dtype) * 2))
op("tensordot", lambda a: tf.tensordot(tf.reshape(a, (-1, 2, 3)), tf.ones((3, 2), a.dtype), 1))

# ---------------------------------------------------------------------- shapes and sums
alone("TensorFlow's own spellings of what of_torch.py has under 'structure'")
op(
    "sums",
    lambda x: tf.concat([tf.reduce_sum(tf.reshape(x, (-1, 2, 3)), 1), tf.reduce_mean(x, -1, keepdims=True), -x], 1),
)
op("add_n", lambda a, b: tf.add_n([a, b, a]) - b, 2)
op(
    "split, stack, unstack",
    lambda x: tf.stack([v * k for k, v in enumerate(tf.unstack(x, axis=1))] + [tf.split(x, 6, 1)[2][:, 0]], 1),
)
op("slices", lambda x: tf.concat([x[:, ::-2], x[:, 1:3], tf.slice(x, [0, 2], [-1, 2]), x[:, -1:]], 1))
op("pads", lambda x: tf.concat([tf.pad(x, [[0, 0], [1, 2]]), tf.pad(x, [[0, 0], [2, 1]], "REFLECT")], 1))
op("repeats", lambda x: tf.concat([tf.tile(x, [1, 2]), tf.repeat(x, 2, 1), tf.roll(x, 2, 1), tf.reverse(x, [1])], 1))
op("broadcast", lambda x: tf.broadcast_to(x[:, None, :], (tf.shape(x)[0], 2, 6)) * tf.constant([[1.0], [2.0]], x.dtype))
op(
    "diagonals",
    lambda x: tf.concat([tf.reshape(linalg.diag(x), (-1, 36)), linalg.diag_part(tf.reshape(x[:, :4], (-1, 2, 2)))], 1),
)
op("band", lambda x: linalg.band_part(tf.reshape(x, (-1, 2, 3)), 0, 1))
op("set diagonal", lambda x: linalg.set_diag(tf.reshape(x, (-1, 2, 3)), x[:, :2] * 3))
op(
    "gather",
    lambda x: tf.concat([tf.gather(x, [2, 0, 2], axis=1), tf.transpose(tf.gather_nd(tf.transpose(x), [[1], [3]]))], 1),
)
op("scatter", lambda x: tf.transpose(tf.tensor_scatter_nd_add(tf.transpose(x), [[1], [4]], tf.transpose(x[:, :2]))))
op(
    "scatter update",
    lambda x: tf.transpose(tf.tensor_scatter_nd_update(tf.transpose(x), [[1]], tf.transpose(x[:, :1] * 2))),
)
op("segments", lambda x: tf.transpose(tf.math.unsorted_segment_sum(tf.transpose(x), [0, 1, 0, 2, 1, 0], 3)))
op("fourier, parts", lambda x: tf.concat([math.real(tf.signal.rfft(x)), math.imag(tf.signal.rfft(x))], 1))
op("inverse fourier", lambda x: tf.signal.irfft(tf.signal.rfft(x) * 2))
op("fill", lambda x: tf.map_fn(lambda r: tf.fill((3,), r[0]), x))
op("identities", lambda x: tf.stop_gradient(tf.identity(x)) * tf.ensure_shape(x, (None, 6)))

# ---------------------------------------------------------------------- choices and ids
alone("TensorFlow's own spellings of what of_torch.py has under 'conditions on the input'")
op("where, one branch constant", lambda x: tf.where(x > 0.2, x, -1.0), smooth=False)
op("old select", lambda a, b: tf.compat.v1.where(a > 0, a, b), 2, smooth=False)
op("table and ids", lambda a, b: tf.gather(a, tf.clip_by_value(tf.cast(tf.abs(b) * 3, tf.int32), 0, 5), axis=1, batch_dims=1), 2,
   smooth=False)  # fmt: skip
op("counts", lambda x: tf.ensure_shape(math.bincount(
    tf.cast(tf.clip_by_value(tf.abs(x) * 2, 0, 3), tf.int32), minlength=4, maxlength=4, axis=-1), (None, 4)),
    smooth=False)  # fmt: skip

# ---------------------------------------------------------------------- along axes
alone("operations that graphs alone have: vectorised maps, sizes not known")
op("logsumexp, vectorised map", lambda x: tf.vectorized_map(lambda r: tf.reduce_logsumexp(tf.reshape(r, (2, 3)), 1), x))
op("max, vectorised map", lambda x: tf.vectorized_map(lambda r: tf.reduce_max(tf.reshape(r, (2, 3)), -2), x))
op("cross entropy", lambda a, b: nn.softmax_cross_entropy_with_logits(nn.softmax(b), a)[:, None], 2)
op(
    "sparse cross entropy",
    lambda a: nn.sparse_softmax_cross_entropy_with_logits(tf.ones(tf.shape(a)[:1], tf.int32), a)[:, None],
)
op("product over an axis of unknown size", lambda x: tf.reduce_prod(
    tf.boolean_mask(x, [True, True, False, True, True, True], axis=1), -1, keepdims=True))  # fmt: skip
op("boolean mask of the same places", lambda x: tf.reshape(
    tf.boolean_mask(tf.tanh(x), x > tf.constant([-50.0, 50.0, 50.0, -50.0, 50.0, -50.0], x.dtype)), (-1, 3)))  # fmt: skip
op("euclidean norm", lambda x: math.reduce_euclidean_norm(x, -1, keepdims=True))

# ---------------------------------------------------------------------- images
alone("channels last, and TensorFlow's way to pad")
op("convolution", lambda x: nn.conv2d(image(x), tf.constant(KERNEL, x.dtype), 1, "SAME"))
op("convolution with what depends on the input", lambda a, b: tf.map_fn(
    lambda r: nn.conv1d(r[0][None, :, None], r[1][:2][:, None, None], 1, "VALID")[0, :, 0], (a, b),
    fn_output_signature=a.dtype), 2)  # fmt: skip
op("depthwise", lambda x: nn.depthwise_conv2d(image(x), tf.constant(KERNEL, x.dtype), [1, 1, 1, 1], "VALID"))
op("transposed convolution", lambda x: nn.conv2d_transpose(
    image(x), tf.constant(np.swapaxes(KERNEL, 2, 3), x.dtype), tf.stack([tf.shape(x)[0], 8, 6, 3]), 2))  # fmt: skip
op("max pool, strides", lambda x: nn.max_pool2d(image(x), (2, 3), (2, 1), "VALID"))
op("resize", lambda x: tf.image.resize(image(x), (5, 5)), dtypes=("float32",))
op("patches", lambda x: tf.image.extract_patches(image(x), [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "VALID"))
op("space to depth", lambda x: nn.space_to_depth(image(x)[:, :, :2], 2))
op(
    "local response norm",
    lambda x: nn.local_response_normalization(image(x, 2), 1, 1.0, 0.5, 0.75),
    dtypes=("float32",),
)
op("dilated convolution", lambda x: nn.conv1d(x[:, :, None], tf.ones((2, 1, 2), x.dtype), 1, "SAME", dilations=2))

# ---------------------------------------------------------------------- control flow
alone("loops and branches of graphs; torch's are Python's")
op("while", lambda x: tf.while_loop(lambda i, h: i < 4, lambda i, h: (i + 1, tf.tanh(h) * x), (0, x))[1])
op("scan", lambda x: tf.scan(lambda a, b: tf.tanh(a) * b + b, tf.transpose(x))[-1][:, None])
op("map over rows", lambda x: tf.map_fn(lambda r: tf.sin(r) * r[0], x))
op("vectorised map", lambda x: tf.vectorized_map(lambda r: tf.sin(r) * r[0], x))
op("cond", lambda x: tf.cond(tf.constant(2) > 1, lambda: tf.tanh(x), lambda: x))
op("switch", lambda x: tf.switch_case(tf.rank(x) - 1, [lambda: x, lambda: tf.sin(x), lambda: x * 2]))
op("nested loops", lambda x: tf.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, tf.while_loop(
    lambda j, g: j < 2, lambda j, g: (j + 1, tf.sin(g) * x), (0, h))[1]), (0, x))[1])  # fmt: skip
op("tensor array, dynamic", lambda x: tf.while_loop(
    lambda i, a: i < 3, lambda i, a: (i + 1, a.write(i, tf.tanh(x) * tf.cast(i, x.dtype))),
    (0, tf.TensorArray(x.dtype, 0, dynamic_size=True, element_shape=(None, 6))))[1].stack()[2])  # fmt: skip
op("what a loop wrote before", lambda x: tf.while_loop(
    lambda i, a: i < 4, lambda i, a: (i + 1, a.write(i, tf.sin(a.read(i - 1)) * x)),
    (1, tf.TensorArray(x.dtype, 4, clear_after_read=False, element_shape=(None, 6)).write(0, x)))[1].stack()[3])  # fmt: skip
op("function in a function", lambda x: tf.function(lambda y: tf.function(tf.sin)(y) * y)(x))

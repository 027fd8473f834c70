"""More operations of TensorFlow, which few models use; several in one line where they are of a kind. See ``of_tensorflow.py``."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import linalg, math, nn, raw_ops, signal

from cases.of_tensorflow import CASES, alone, image
from cases.of_tensorflow import op as line

__all__ = ["CASES"]

op = partial(line, dtypes=("float64",))  # the rules' precision is looked at in of_tensorflow.py
special = math.special
KERNEL = np.random.default_rng(6).normal(size=(2, 2, 2, 2, 3))
TABLE = tf.Variable(np.arange(12.0).reshape(6, 2) ** 2, trainable=False)
FACTOR = tf.Variable(1.5, dtype=tf.float64, trainable=False)
LOOKUP = tf.lookup.StaticHashTable(
    tf.lookup.KeyValueTensorInitializer(range(-5, 6), [k * k + 3 for k in range(-5, 6)]), 7
)


def film(x: Any) -> Any:
    """Rows as films (rows, 2, 3, 2, 2), made of features of all places."""
    return tf.reshape(image(x), (-1, 2, 3, 2, 2))


def flat(*tensors: Any) -> Any:
    """Tensors of rows, side by side."""
    return tf.concat([tf.reshape(t, (-1, np.prod(t.shape[1:], dtype=int))) for t in tensors], 1)


def along_features(function: Any) -> Any:
    """A function of rows that works along the first axis of tensors, on the features."""
    return lambda x: tf.transpose(function(tf.transpose(x)))


def whole(x: Any) -> Any:
    """Integers that depend on the input."""
    return tf.cast(x * 2, tf.int32)


# ---------------------------------------------------------------------- elementwise
alone("several operations in a line, of which of_torch.py has those of torch one by one")
op("bessel and others", lambda x: flat(*(getattr(special, name)(x) for name in (
    "bessel_i0", "bessel_i1", "bessel_i1e", "bessel_j0", "bessel_j1", "dawsn", "fresnel_cos", "fresnel_sin"))))  # fmt: skip
op("bessel and others, positive", lambda x: flat(*(getattr(special, name)(x) for name in (
    "bessel_k0", "bessel_k0e", "bessel_k1", "bessel_k1e", "bessel_y0", "bessel_y1", "expint", "spence"))),
    domain="positive")  # fmt: skip
op("incomplete gamma", lambda a, x: flat(math.igamma(a, x), math.igammac(a, x)), 2, "positive")
op("incomplete beta", lambda a, x: math.betainc(a + 1, tf.constant(2, x.dtype), x), 2, "unit")
op("zeta, polygamma", lambda a, x: flat(math.zeta(a, x), math.polygamma(tf.ones_like(x), x)), 2, "above one")
op("x log(1 + y)", math.xlog1py, 2, "positive")
op("clip by an operation of its own", lambda x: raw_ops.ClipByValue(t=x, clip_value_min=-0.5, clip_value_max=0.5))
op("the next number", lambda x: math.nextafter(x, tf.constant(100.0, x.dtype)))
op("bits of integers", lambda x, y: flat(*(tf.cast(function(whole(x), whole(y)), x.dtype) for function in (
    tf.bitwise.bitwise_or, tf.bitwise.bitwise_xor, lambda a, b: tf.bitwise.invert(a),
    lambda a, b: tf.bitwise.left_shift(tf.abs(a), 2), lambda a, b: tf.bitwise.right_shift(tf.abs(a), 1)))), 2,
    smooth=False)  # fmt: skip
op("remainders of integers", lambda x, y: flat(*(tf.cast(function(x=whole(x), y=whole(y) + 1), x.dtype) for function in (
    raw_ops.Mod, raw_ops.TruncateMod, raw_ops.TruncateDiv))), 2, "positive", smooth=False)  # fmt: skip
op("nearly equal", lambda x, y: tf.cast(raw_ops.ApproximateEqual(x=x, y=y, tolerance=0.5), x.dtype), 2, smooth=False)
op("looked up", lambda x: tf.cast(LOOKUP.lookup(whole(x)), x.dtype), smooth=False)
op("checked", lambda x: raw_ops.PreventGradient(input=tf.debugging.check_numerics(x, "no number")) * x)

# ---------------------------------------------------------------------- shapes and sums
alone("TensorFlow's own spellings of what of_torch.py has under 'structure'")
op("space and batch", lambda x: flat(
    raw_ops.BatchToSpaceND(input=tf.tanh(raw_ops.SpaceToBatchND(
        input=image(x), block_shape=[2, 1], paddings=[[0, 0], [0, 0]])), block_shape=[2, 1], crops=[[0, 0], [0, 0]]),
    raw_ops.BatchToSpace(input=tf.tanh(raw_ops.SpaceToBatch(
        input=image(x), paddings=[[0, 0], [1, 0]], block_size=2)), crops=[[0, 0], [1, 0]], block_size=2)))  # fmt: skip
op("depth to space", lambda x: nn.depth_to_space(image(x, 2)[:, :, :2, :1] * tf.ones((4,), x.dtype), 2))
op("pads, splits, biases", lambda x: flat(
    tf.pad(x, [[0, 0], [1, 1]], constant_values=1), *tf.split(x, [2, 4], 1)[::-1],
    nn.bias_add(x, tf.ones(6, x.dtype))))  # fmt: skip
op("reversed", lambda x: flat(
    raw_ops.Reverse(tensor=x, dims=[False, True]),
    tf.reverse_sequence(tf.reshape(x, (-1, 3, 2)), tf.fill(tf.shape(x)[:1], 2), seq_axis=1)))  # fmt: skip
op("complex numbers", lambda a, b: (lambda z: flat(*(part for v in (
    signal.fft(z), signal.ifft(math.conj(z)), tf.transpose(tf.reshape(z, (-1, 2, 3)), (0, 2, 1), conjugate=True),
    ) for part in (math.real(v), math.imag(v)))))(tf.complex(a, b)), 2)  # fmt: skip
op("fourier in two and three", lambda a, b: (lambda z: flat(*(part for v in (
    signal.fft2d(z), signal.ifft2d(z), signal.fft3d(z[:, None]), signal.ifft3d(z[:, None]),
    signal.rfft2d(tf.reshape(a, (-1, 2, 3)))) for part in (math.real(v), math.imag(v))),
    signal.irfft2d(z)))(tf.reshape(tf.complex(a, b), (-1, 2, 3))), 2)  # fmt: skip
op("diagonals of all axes", lambda x: tf.map_fn(lambda r: linalg.tensor_diag_part(linalg.tensor_diag(r) * 2), x))
op("parts", along_features(lambda x: tf.concat([
    tf.dynamic_stitch([[0, 2, 5], [1, 3, 4]], tf.dynamic_partition(x, [0, 1, 0, 1, 1, 0], 2)),
    raw_ops.ParallelDynamicStitch(indices=[[1, 0], [2, 3]], data=[x[:2], x[4:]])], 0)))  # fmt: skip
op("sums of segments", along_features(lambda x: tf.ensure_shape(tf.concat([
    math.segment_sum(x, [0, 0, 1, 1, 1, 2]), math.segment_mean(x, [0, 0, 1, 1, 1, 2]),
    tf.sparse.segment_sum(x, [0, 3, 5], [0, 0, 1]), tf.sparse.segment_mean(x, [1, 2, 2], [0, 0, 1])], 0),
    (10, None))))  # fmt: skip
op("scattered", along_features(lambda x: tf.concat([
    tf.scatter_nd([[1], [3]], x[:2], tf.stack([5, tf.shape(x)[1]])), tf.tensor_scatter_nd_sub(x, [[1], [4]], x[:2]),
    raw_ops.TensorStridedSliceUpdate(input=x, begin=[1], end=[3], strides=[1], value=x[3:5])], 0)))  # fmt: skip
op("sums of squares", lambda x: tf.map_fn(nn.l2_loss, x)[:, None])
op("from a table that is a variable", lambda x: tf.cast(
    tf.gather(TABLE, tf.clip_by_value(tf.cast(tf.abs(x) * 2, tf.int32), 0, 5)), x.dtype), smooth=False)  # fmt: skip


def positions(x: Any) -> Any:
    """Positions that are the same for all rows, used as indices."""
    steps = x + 100 * tf.range(6, dtype=x.dtype)
    ends = tf.tile(tf.constant([[-1e6, 1e6]], x.dtype), [tf.shape(x)[0], 1])
    at = [tf.argmax(steps, 1), tf.argmin(steps, 1, tf.int64), *(
        tf.cast(tf.searchsorted(ends, x, side=side)[:, 0], tf.int64) for side in ("left", "right"))]  # fmt: skip
    order = math.invert_permutation(tf.argsort(steps[0]))
    places = tf.where(steps[0] > -50)[:, 0]
    kinds = tf.unique(tf.cast(steps[0] > 50, tf.int32)).idx
    single = raw_ops.UniqueV2(x=tf.cast(steps[0] > 50, tf.int32), axis=[0]).idx
    chosen = [tf.gather(x * x, k, batch_dims=1)[:, None] for k in at]
    orders = [tf.gather(tf.sin(x), tf.cast(k, tf.int64), axis=1) for k in (order, places, kinds, single)]
    return tf.ensure_shape(tf.concat([*chosen, *orders], 1), (None, 28))


op("positions that do not depend on the row", positions)

# ---------------------------------------------------------------------- images and films
alone("channels last, and TensorFlow's way to pad")
op("films", lambda x: flat(
    nn.conv3d(film(x), tf.constant(KERNEL, x.dtype), [1] * 5, "SAME"),
    nn.conv3d_transpose(film(x), tf.constant(np.swapaxes(KERNEL, 3, 4), x.dtype), tf.stack([tf.shape(x)[0], 3, 4, 3, 3]), 1,
                        "VALID"),
    tf.extract_volume_patches(film(x), [1, 2, 2, 1, 1], [1] * 5, "VALID")))  # fmt: skip
op("pools of films", lambda x: flat(
    nn.avg_pool3d(film(x), 2, 1, "SAME"), nn.max_pool3d(film(x), 2, 1, "VALID")), dtypes=("float32",))  # fmt: skip
op("depthwise, transposed", lambda x: nn.depthwise_conv2d_backprop_input(
    tf.stack([tf.shape(x)[0], 5, 4, 2]), tf.constant(KERNEL[0][:, :, :, :2], x.dtype), tf.concat([image(x)] * 2, -1),
    [1, 1, 1, 1], "VALID"))  # fmt: skip
op("other resizes", lambda x: flat(*(tf.image.resize(image(x), (5, 5), method) for method in (
    "bicubic", "nearest", "lanczos3"))), dtypes=("float32",))  # fmt: skip
op("batch norm", lambda x: flat(*(
    function(x=image(x), scale=[2.0, 1.0], offset=[0.1, 0.2], mean=[0.5, 0.1], variance=[2.0, 3.0], is_training=False).y
    for function in (raw_ops.FusedBatchNorm, raw_ops.FusedBatchNormV2, raw_ops.FusedBatchNormV3))),
    dtypes=("float32",))  # fmt: skip

# ---------------------------------------------------------------------- control flow with variables, lists of tensors
alone("graphs alone have them")
op("a loop that reads a variable", lambda x: tf.while_loop(
    lambda k, h: k < 3, lambda k, h: (k + 1, tf.sin(h) * x * tf.cast(FACTOR, x.dtype)), (0, x))[1])  # fmt: skip
op("a branch that reads a variable", lambda x: tf.cond(
    FACTOR > 1, lambda: tf.tanh(x) * tf.cast(FACTOR, x.dtype), lambda: x))  # fmt: skip
op("a switch that reads a variable", lambda x: tf.switch_case(
    tf.cast(FACTOR, tf.int32), [lambda: x, lambda: tf.sin(x) * tf.cast(FACTOR, x.dtype)]))  # fmt: skip
op("a function that reads a variable", lambda x: tf.function(lambda y: tf.sin(y) * tf.cast(FACTOR, y.dtype))(x))


def lists(x: Any) -> Any:
    """Lists of tensors, by the operations behind tf.TensorArray."""
    kind, shape = x.dtype, tf.stack([tf.shape(x)[0], 6])
    empty = raw_ops.EmptyTensorList(element_shape=shape, max_num_elements=-1, element_dtype=kind)
    pushed = raw_ops.TensorListPushBack(input_handle=empty, tensor=x)
    pushed = raw_ops.TensorListPushBack(input_handle=pushed, tensor=tf.sin(x))
    rest, last = raw_ops.TensorListPopBack(input_handle=pushed, element_shape=shape, element_dtype=kind)
    longer = raw_ops.TensorListResize(input_handle=rest, size=2)
    taken = raw_ops.TensorListGather(input_handle=longer, indices=[0], element_shape=shape, element_dtype=kind)
    both = tf.stack([x, last])
    filled = raw_ops.TensorListScatterV2(tensor=both, indices=[1, 0], element_shape=shape, num_elements=2)
    older = raw_ops.TensorListScatter(tensor=both, indices=[1, 0], element_shape=shape)
    stacked = [
        raw_ops.TensorListStack(input_handle=h, element_shape=shape, element_dtype=kind)[0] for h in (filled, older)
    ]
    return tf.concat([taken[0] * last, *(tf.tanh(s) for s in stacked)], 1)


op("lists", lists)

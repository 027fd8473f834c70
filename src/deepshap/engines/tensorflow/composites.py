"""Composite operations: written out in smaller operations, each of which has a rule.

``compose`` makes a handler for the table of a Python function of smaller operations. The handler traces the function,
finds the rows in it, and runs it like a part of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from ...errors import UnsupportedOperationError
from . import axes, rules
from .graphs import Body
from .operations import CUSTOM, LINEAR, MULTILINEAR, POSITIONS, Operation
from .pairing import OperationRecord, Unpaired, Value
from .tracer import Tape, Tracer

CONVOLUTION = Operation(MULTILINEAR)
UPDATE = Operation(LINEAR)
SELECT = Operation(CUSTOM, rules.select)
TOP = Operation(CUSTOM, axes.top_values), Operation(CUSTOM, axes.top_positions)
INFINITE = {tf.float64: 1e30, tf.float32: 1e30, tf.bfloat16: 1e30, tf.float16: 3e4}  # what stands for infinity


def select(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Run a choice. Infinite constants under a condition that depends on the input become finite.

    -inf under such a mask becomes a number whose exponential is 0: a jump of infinity has no share. So do the largest numbers
    of a dtype, which Keras' attention uses instead of -inf.
    """
    condition, *branches = inputs
    if condition.active:
        branches = [_finite(v) if not v.active and _may_be_infinite(v.x) else v for v in branches]
    return tracer.run_active(op, SELECT, [condition, *branches], tape)


def _finite(value: Value) -> Value:
    bound = INFINITE[value.x.dtype]
    x, r, p = (tf.clip_by_value(side, -bound, bound) for side in (value.x, value.r, value.p))
    return Value(x, x if value.r is value.x else r, p=x if value.p is value.x else p)


def _may_be_infinite(value: Any) -> bool:
    """Return whether a constant consists of numbers that represent infinity, or of what is not known while tracing."""
    if not value.dtype.is_floating:
        return False
    constant = tf.get_static_value(value)
    if constant is not None:
        return bool((abs(constant.astype(float)) > INFINITE[value.dtype]).any())
    if value.op.type == "Placeholder":
        outside = [t for t, inside in getattr(value.graph, "captures", ()) if inside is value]
        return not outside or any(map(_may_be_infinite, outside))
    return any(map(_may_be_infinite, value.op.inputs))


def top_k(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Run the selection of the k largest values and of their positions, each with its own rule."""
    outputs = tracer.run_active(op, TOP[0], inputs, None)
    if tape is not None:
        for operation, output in zip(TOP, outputs, strict=True):
            tracer.record(tape, OperationRecord(tracer, op, inputs, [output]), operation)
    return [outputs[0], _as_required(tracer, op, outputs[1])]


def arg_extreme(sign: int = 1) -> Callable[..., list[Value]]:
    """Build the handler of the position of the maximum, or of the minimum."""
    operation = Operation(CUSTOM, axes.arg_position(sign))

    def run(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
        return [_as_required(tracer, op, *tracer.run_active(op, operation, inputs, tape))]

    return run


def _as_required(tracer: Tracer, op: Any, chosen: Value) -> Value:
    """Return positions, which must not be used if they differ between the sides and the user forbids that."""
    if POSITIONS not in tracer.analysis.operations:
        return chosen
    return replace(
        chosen, active=False, p=tracer.pairing.spread(chosen)[0], origin=f"{op.type} in {tracer.library.place(op)}"
    )


def compose(function: Callable[..., Any]) -> Callable[..., list[Value]]:
    """Make a handler for the table of ``function(op, *inputs)``, which computes an operation by smaller ones."""

    def run(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
        with tf.Graph().as_default() as graph:
            placeholders = [tf.compat.v1.placeholder(v.x.dtype, v.x.shape) for v in inputs]
            constants = [v if v is None else tf.constant(v) for v in (tf.get_static_value(v.p) for v in inputs)]
            outputs = tf.nest.flatten(
                function(op, *(g if k is None else k for g, k in zip(placeholders, constants, strict=True)))
            )
        body = Body(placeholders, outputs, graph.get_operations())
        if tracer.pairing.is_separate:
            with tf.Graph().as_default():
                tracer.layouts.scan(tracer.analysis, body, [_placeholder_like(v) for v in inputs])
        return tracer.run(body, inputs, tape)

    run.__doc__ = function.__doc__
    return run


def _placeholder_like(value: Value) -> Any:
    """Return a placeholder with the shape of a value, to find layouts with."""
    if value.active and value.layout is None:
        raise Unpaired
    constant = None if value.active else tf.get_static_value(value.p)
    shape = value.layout.shape if value.active and value.layout else value.p.shape
    return tf.compat.v1.placeholder(value.x.dtype, shape) if constant is None else tf.constant(constant)


def _scan(op: Any, x: Any, axis: Any, combine: Callable[[Any, Any], Any], start: float) -> Any:
    axis = tf.get_static_value(axis)
    size = x.shape[int(axis)] if axis is not None and x.shape.rank is not None else None
    if size is None:
        raise UnsupportedOperationError(f"{op.type} along an axis of unknown size has no rule.")
    parts = tf.unstack(x, size, int(axis))
    parts = parts[::-1] if op.get_attr("reverse") else parts
    for k in range(1, size):
        parts[k] = combine(parts[k - 1], parts[k])
    if op.get_attr("exclusive"):
        parts = [tf.fill(tf.shape(parts[0]), tf.cast(start, x.dtype)), *parts[:-1]]
    return tf.stack(parts[::-1] if op.get_attr("reverse") else parts, int(axis))


@compose
def running_product(op: Any, x: Any, axis: Any) -> Any:
    """Compute a running product, one half-split after the other."""
    return _scan(op, x, axis, tf.multiply, 1)


@compose
def running_logsumexp(op: Any, x: Any, axis: Any) -> Any:
    """Compute a running logsumexp: that of two numbers is z - log_softmax(z)."""

    def combine(a: Any, b: Any) -> Any:
        both = tf.stack([a, b], -1)
        return (both - tf.nn.log_softmax(both))[..., 0]

    return _scan(op, x, axis, combine, x.dtype.min)


@compose
def local_response_norm(op: Any, x: Any) -> Any:
    """Divide the input by a power of the summed squares of neighbouring channels."""
    radius, channels = op.get_attr("depth_radius"), x.shape[-1]
    sums = tf.cumsum(tf.pad(tf.square(x), [[0, 0]] * 3 + [[radius + 1, radius]]), -1)
    total = sums[..., 2 * radius + 1 :] - sums[..., :channels]
    return x / tf.pow(op.get_attr("bias") + op.get_attr("alpha") * total, op.get_attr("beta"))


@compose
def grouped_convolution(op: Any, x: Any, filters: Any) -> Any:
    """Compute a convolution without dilation, one group of channels after the other: CPUs have no other gradient."""
    filters = _stretched(filters, op.get_attr("dilations"), op.get_attr("data_format") == b"NHWC")
    axis = -1 if op.get_attr("data_format") == b"NHWC" else 1
    groups = x.shape[axis] // filters.shape[-2]
    options = {name: op.get_attr(name) for name in ("strides", "padding", "explicit_paddings", "data_format")}
    parts = zip(tf.split(x, groups, axis), tf.split(filters, groups, -1), strict=True)
    return tf.concat([tf.raw_ops.Conv2D(input=a, filter=b, **_decoded(options)) for a, b in parts], axis)


def _stretched(filters: Any, dilations: list[int], channels_last: bool) -> Any:
    """Return filters with zeros between their elements, which replace a dilation."""
    dilations = dilations[1:3] if channels_last else dilations[2:]
    sizes = filters.shape.as_list()
    if dilations == [1, 1]:
        return filters
    (height, width, *channels), (down, across) = sizes, dilations
    spread = tf.pad(
        tf.reshape(filters, [height, 1, width, 1, *channels]),
        [[0, 0], [0, down - 1], [0, 0], [0, across - 1], [0, 0], [0, 0]],
    )
    spread = tf.reshape(spread, [height * down, width * across, *channels])
    return spread[: (height - 1) * down + 1, : (width - 1) * across + 1]


def _decoded(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in options.items()}


def conv2d(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Run a convolution, group by group if CPUs have no gradient for it as a whole."""
    x, filters = (v.x.shape for v in inputs)
    axis = -1 if op.get_attr("data_format") == b"NHWC" else 1
    grouped = x.rank == filters.rank == 4 and filters[-2] is not None and x[axis] != filters[-2]
    grouped = grouped or (filters.is_fully_defined() and max(op.get_attr("dilations")) > 1)
    return (
        grouped_convolution(tracer, op, inputs, tape) if grouped else tracer.run_active(op, CONVOLUTION, inputs, tape)
    )


@compose
def bincount(op: Any, ids: Any, size: Any, weights: Any) -> Any:
    """Count how often each id occurs (or with which weights, or whether): a sum (or maximum) of one-hot vectors."""
    rows = tf.one_hot(ids, size, dtype=weights.dtype)
    if weights.shape.num_elements() != 0:
        rows = rows * tf.expand_dims(weights, -1)
    return tf.reduce_max(rows, -2) if op.get_attr("binary_output") else tf.reduce_sum(rows, -2)


@compose
def modulus(op: Any, x: Any) -> Any:
    """Compute the root of the sum of two squares."""
    return tf.sqrt(tf.square(tf.math.real(x)) + tf.square(tf.math.imag(x)))


@compose
def put(op: Any, x: Any, places: Any, values: Any) -> Any:
    """Put values at distinct positions: add there the difference from the previous values."""
    return tf.tensor_scatter_nd_add(x, places, values - tf.gather_nd(x, places))


def update(tracer: Tracer, op: Any, inputs: list[Value], tape: Tape | None) -> list[Value]:
    """Run a scatter update."""
    return put(tracer, op, inputs, tape) if inputs[1].active else tracer.run_active(op, UPDATE, inputs, tape)


@compose
def norm(op: Any, x: Any, axes: Any) -> Any:
    """Compute the root of the sum of squares."""
    return tf.sqrt(tf.reduce_sum(tf.square(x), axes, keepdims=op.get_attr("keep_dims")))

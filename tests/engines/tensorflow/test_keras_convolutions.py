"""Convolutions as a whole: recognised with their padding and blocks, and the same as operation by operation in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import deepshap
from deepshap.engines.tensorflow import adjoints, fused_adjoints, tracer

DRAWN = np.random.default_rng(0)
X, REFERENCES = DRAWN.normal(size=(3, 30, 4)), DRAWN.normal(size=(5, 30, 4))
X[0] = REFERENCES[1]  # a pair that does not differ
LINE, LONG, FIELD = (DRAWN.normal(size=(*sizes, 4, 3)) for sizes in ((3,), (4,), (2, 3)))
WIDE = DRAWN.normal(size=(3, 5, 3))
WEIGHTS = DRAWN.normal(size=(200, 2))


def in_line(filters=LINE, pad=(0, 0), padding="VALID", **options):
    def run(x):
        padded = tf.pad(x, [[0, 0], pad, [0, 0]]) if any(pad) else x
        return tf.nn.conv1d(
            padded, tf.cast(filters, x.dtype), options.get("stride", 1), padding, dilations=options.get("dilations")
        )

    return run


def in_field(padding="VALID", pad=((0, 0), (0, 0)), strides=1, filters=FIELD):
    def run(x):
        field = tf.reshape(x, [-1, 5, 6, 4])
        padded = tf.pad(field, [[0, 0], *pad, [0, 0]]) if np.any(pad) else field
        return tf.nn.conv2d(padded, tf.cast(filters, x.dtype), strides, padding)

    return run


def in_blocks(crops=((0, 0), (1, 2)), padding="VALID"):
    def run(x):
        parts = tf.space_to_batch(tf.reshape(x, [-1, 5, 6, 4]), [2, 3], [[1, 2], [3, 3]])
        made = tf.nn.conv2d(parts, tf.cast(FIELD, x.dtype), 1, padding)
        return tf.batch_to_space(made, [2, 3], crops)

    return run


FORMS = {
    "valid": in_line(),
    "causal": in_line(pad=(2, 0)),
    "same": in_line(padding="SAME"),
    "same, of an even length": in_line(LONG, padding="SAME"),
    "padded ahead and behind": in_line(LONG, pad=(1, 3)),
    "dilated": in_line(dilations=2),
    "dilated, causal": in_line(pad=(8, 0), dilations=4),
    "dilated, same": in_line(LONG, padding="SAME", dilations=3),
    "of two axes": in_field(),
    "of two axes, same": in_field("SAME"),
    "of two axes, padded": in_field(pad=((1, 0), (0, 2))),
    "of two axes, padded and same": in_field([[0, 0], [1, 0], [2, 1], [0, 0]]),
    "of two axes, in blocks": in_blocks(),
}
OTHERS = {  # with how many of their convolutions are pulled back as a whole, without what is around them
    "in strides": (in_line(stride=2), 0),
    "of two axes, in strides": (in_field("SAME", strides=2), 0),
    "of two groups": (in_field(filters=FIELD[:, :, :2, :2]), 2),
    "padded further than it reaches": (in_line(pad=(3, 0)), 1),
    "padded by numbers of 64 bits": (lambda x: tf.pad(x, np.array([[0, 0], [2, 0], [0, 1]], "int64")), 0),
    "with channels padded": (lambda x: in_line(WIDE)(tf.pad(x, [[0, 0], [1, 1], [1, 0]])), 1),
    "padded in blocks": (in_blocks(padding="SAME", crops=((1, 2), (3, 3))), 0),
}


@pytest.fixture
def wholes(monkeypatch):
    """Note what has been pulled back as a whole."""
    found, original = [], fused_adjoints.Convolution.pull
    monkeypatch.setattr(fused_adjoints.Convolution, "pull", lambda *given: (found.append(given), original(*given))[1])
    return found


def explained(run, dtype):
    """All attributions, of two outputs."""

    def model(x):
        flat = tf.reshape(tf.nn.relu(run(x)), [tf.shape(x)[0], -1])
        size = flat.shape[1] or np.prod(run(tf.zeros([1, 30, 4], dtype)).shape)
        return tf.ensure_shape(flat, [None, size]) @ tf.cast(WEIGHTS[:size], dtype)

    explainer = deepshap.DeepExplainer(model, REFERENCES.astype(dtype), progress=False)
    return np.asarray(explainer.shap_values(X.astype(dtype)))


def one_by_one(run, monkeypatch):
    """The same in float64, of TensorFlow's own gradients of single operations."""
    with monkeypatch.context() as patched:
        patched.setattr(tracer, "match_convolution", lambda step, makers: None)
        for name in ("Pad", "StridedSlice"):
            patched.delitem(adjoints.ADJOINTS, name)
        return explained(run, "float64")


@pytest.mark.parametrize("name", FORMS)
def test_a_convolution_as_a_whole_gives_what_its_operations_give(name, wholes, monkeypatch):
    expected = one_by_one(FORMS[name], monkeypatch)
    assert not wholes
    for dtype, rounding in (("float64", 1e-12), ("float32", 2e-5)):
        found = explained(FORMS[name], dtype)
        np.testing.assert_allclose(found, expected, atol=rounding * abs(expected).max(), rtol=0)
        assert len(wholes) == 1
        wholes.clear()


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_part_of_it_goes_back_by_itself(name, wholes, monkeypatch):
    run, count = OTHERS[name]
    expected = one_by_one(run, monkeypatch)
    found = explained(run, "float64")
    np.testing.assert_allclose(found, expected, atol=1e-12 * abs(expected).max(), rtol=0)
    assert len(wholes) == count


def test_what_else_uses_a_part_of_it_has_its_share(wholes, monkeypatch):
    """What is padded, and what is convolved before its bias, go elsewhere too."""

    def run(x):
        padded = tf.pad(x, [[0, 0], [2, 0], [0, 0]])
        made = tf.nn.conv1d(padded, tf.cast(LINE, x.dtype), 1, "VALID")
        return tf.nn.relu(made) * tf.tanh(made) + tf.reduce_sum(tf.tanh(padded[:, 1:-1]), [1, 2], keepdims=True)

    expected = one_by_one(run, monkeypatch)
    found = explained(run, "float64")
    np.testing.assert_allclose(found, expected, atol=1e-12 * abs(expected).max(), rtol=0)
    assert wholes

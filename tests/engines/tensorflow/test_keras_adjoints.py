"""Adjoints: rules see no steps but those that are reached, with the same values as over all steps; einsums are those of NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import deepshap
from deepshap.engines.tensorflow import adjoints, kernel_dispatch, tracer
from deepshap.engines.tensorflow.adjoints import einsum
from deepshap.kernels import jit_threshold

STEPS, FEATURES = 12, 4
DRAWN = np.random.default_rng(0)
X, REFERENCES = DRAWN.normal(size=(3, STEPS, FEATURES)), DRAWN.normal(size=(5, STEPS, FEATURES))
X[0] = REFERENCES[1]  # a pair that does not differ
INTO = [DRAWN.normal(size=(3, FEATURES, FEATURES)) for _ in range(3)]


def convolved(x, dilations=(1, 2), ahead=1.0):
    """Causal convolutions, or some that look at both sides."""
    for filters, dilation in zip(INTO, dilations, strict=False):
        reach = 2 * dilation
        pad = [round(reach * ahead), reach - round(reach * ahead)]
        padded = tf.pad(x, [[0, 0], pad, [0, 0]])
        x = tf.nn.relu(keras.ops.conv(padded, tf.cast(filters, x.dtype), padding="valid", dilation_rate=dilation))
    return x


def residual(x):
    for dilation in (1, 2):
        x = tf.tanh(x) + convolved(x, (dilation,))
    return x


def image(x):
    made = tf.reshape(x, [-1, 3, 4, FEATURES])
    for filters in INTO[:2]:
        made = tf.nn.relu(tf.nn.conv2d(made, tf.cast(filters, x.dtype)[None], 1, "SAME"))
    return made[:, 1:, 2]


FORMS = {
    "the last step": lambda x: convolved(x)[:, -1],
    "the first step": lambda x: convolved(x)[:, 0],
    "some steps": lambda x: convolved(x, ahead=0.5)[:, 3:5],
    "steps up to the last but one, and a feature": lambda x: tf.sigmoid(convolved(x)[:, -3:-1, 1]),
    "features": lambda x: convolved(x)[:, :, 1:3],
    "all steps": lambda x: convolved(x)[:, :],
    "beyond the last step": lambda x: convolved(x)[:, 9:40],
    "a step of a part": lambda x: convolved(x)[:, 2:-1][:, -1],
    "several parts": lambda x: (made := convolved(x))[:, 3] * made[:, 7] + tf.tanh(made)[:, 5],
    "residual blocks": lambda x: residual(x)[:, -1],
    "a part, and everything": lambda x: (made := convolved(x))[:, -1] + tf.reduce_mean(tf.tanh(made), 1),
    "convolutions whose fields begin at their end": lambda x: convolved(x, (4, 5, 1))[:, -1],
    "a field of two axes": image,
    "every other step": lambda x: convolved(x)[:, ::2],
    "steps backwards": lambda x: convolved(x)[:, ::-1][:, 0],
    "an axis more": lambda x: convolved(x)[:, tf.newaxis, -1],
    "the last feature": lambda x: convolved(x)[..., -1],
    "nothing beside a step": lambda x: tf.concat([convolved(x)[:, 4:4], convolved(x)[:, :1]], 1),
    "functions of two operands": lambda x: tf.maximum((made := convolved(x)), 0.1 * made)[:, -2],
    "functions without a closed form": lambda x: tf.math.lgamma(2 + tf.nn.relu(convolved(x)))[:, 1],
}


def explained(run, dtype):
    """All attributions, of two outputs."""

    def model(x):
        made = tf.reshape(run(x), [tf.shape(x)[0], -1])
        return tf.stack([tf.reduce_sum(made, 1), tf.reduce_sum(made * made, 1)], 1)

    explainer = deepshap.DeepExplainer(model, REFERENCES.astype(dtype), progress=False)
    return np.asarray(explainer.shap_values(X.astype(dtype)))


@pytest.mark.parametrize(
    "compiled", [pytest.param(False, id="plain", marks=pytest.mark.wide), pytest.param(True, id="compiled")]
)
@pytest.mark.parametrize("name", FORMS)
def test_bands_give_what_all_steps_give(name, compiled, monkeypatch):
    monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0 if compiled else np.inf)
    with monkeypatch.context() as patched:
        patched.setattr(tracer, "match_convolution", lambda step, makers: None)
        patched.setattr(adjoints, "nonzero_slice", lambda m: None)
        for adjoint in ("Pad", "StridedSlice"):
            patched.delitem(adjoints.ADJOINTS, adjoint)
        expected = explained(FORMS[name], "float64")
    for dtype, rounding in (("float64", 1e-12), ("float32", 3e-5)):
        found = explained(FORMS[name], dtype)
        np.testing.assert_allclose(found, expected, atol=rounding * abs(expected).max(), rtol=0)


def test_rules_run_on_the_steps_that_are_reached_alone(monkeypatch):
    seen, original = [], kernel_dispatch.elementwise
    monkeypatch.setattr(
        kernel_dispatch, "elementwise", lambda secant, step, m: (seen.append(m.shape[1]), original(secant, step, m))[1]
    )
    explained(lambda x: convolved(x, (4, 1, 2))[:, -1], "float32")
    assert seen
    assert set(seen) <= {1, 5, 7}


def test_what_no_step_reaches_may_be_infinite():
    """The way back does not come there, and what is nothing times infinity is not asked."""
    values = deepshap.DeepExplainer(
        lambda x: tf.reduce_sum(tf.exp(1000 * tf.nn.relu(x))[:, -1:], [1, 2])[:, None],
        np.zeros((2, 3, 1)),
        progress=False,
    ).shap_values(np.array([[[3.0], [3.0], [0.1]]]))
    np.testing.assert_allclose(np.ravel(values), [0, 0, np.exp(100) - 1], rtol=1e-12)


# ---------------------------------------------------------------------- where there is no band
def adds_up(model, x, references):
    """The sums of the values, beside the differences of the model's own outputs."""
    values = deepshap.DeepExplainer(model, references, progress=False).shap_values(x)
    wanted = np.asarray(model(x)) - np.asarray(model(references)).mean(0)
    np.testing.assert_allclose(values.sum(tuple(range(1, values.ndim - 1))), wanted, atol=1e-5)


@pytest.mark.parametrize("layer", [keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose])
def test_channels_are_not_padded(layer):
    """TensorFlow joins a convolution with what pads its channels, and fails then."""
    sizes = (3, 4, 3)[: 2 if layer is keras.layers.Conv2DTranspose else 3]
    given = keras.Input((*sizes, 2))
    made = layer(3, 2, activation="relu")(given)
    model = keras.Model(
        given, keras.layers.Dense(1)(keras.layers.Flatten()(made[(slice(None),) * (made.ndim - 1) + (slice(1),)]))
    )
    x = DRAWN.normal(size=(5, *sizes, 2)).astype(np.float32)
    adds_up(model, x[:2], x[2:])


def test_a_layer_with_a_rule_of_its_own_has_no_band():
    deepshap.register_rule(keras.layers.LeakyReLU, "elementwise")
    try:
        given = keras.Input((STEPS, FEATURES))
        made = keras.layers.LeakyReLU()(keras.layers.Dense(3)(given))
        adds_up(
            keras.Model(given, keras.layers.Dense(1)(made[:, -1])), X.astype(np.float32), REFERENCES.astype(np.float32)
        )
    finally:
        deepshap.unregister_rule(keras.layers.LeakyReLU)


def test_values_of_unknown_rank_have_none():
    weights = tf.constant(DRAWN.normal(size=(FEATURES, FEATURES)))

    def model(x):
        unknown = tf.TensorShape(None)
        _, state = tf.while_loop(
            lambda turn, _: turn < 3,
            lambda turn, state: (turn + 1, tf.tanh(state @ weights + x[:, turn])),
            (tf.constant(0), x[:, 0]),
            shape_invariants=(tf.TensorShape([]), unknown),
        )
        return tf.ensure_shape(state, [None, FEATURES])

    adds_up(model, X, REFERENCES)


@pytest.mark.parametrize("axes", [6, 7, 8])
def test_values_of_many_axes_have_none(axes):
    shape = (2,) * (axes - 1)

    def model(x):
        cut = tf.tanh(tf.reshape(x, (-1, *shape)))[(slice(None), *[slice(1, None), slice(None)] * 3)[:axes]]
        return tf.reshape(cut, (-1, int(np.prod(cut.shape[1:]))))

    x = DRAWN.normal(size=(5, int(np.prod(shape))))
    adds_up(model, x[:2], x[2:])


# ---------------------------------------------------------------------- einsums as matrix products
SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6}
EQUATIONS = (  # of attention, of dense layers, and with nothing in a role
    *("aecd,abcd->acbe", "acbe,aecd->abcd", "acbe,abcd->aecd", "abde,cde->abc", "abc,cde->abde"),
    *("ab,bc->ac", "ab,bc->ca", "ba,cb->ac", "ba,cb->ca", "acb,abd->adc", "acb,abd->acd", "abc,dba->bcd"),
    *("ab,cd->dbac", "abc,abc->", "abc,abc->cab", "ab,a->b", "a,ab->b", "abc,ac->b"),
)


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("known", [True, False])
def test_as_numpy(equation, known):
    names = equation.partition("->")[0].split(",")
    draw = np.random.default_rng(0)
    factors = [draw.normal(size=[SIZES[k] for k in name]) for name in names]
    shapes = [[SIZES[k] if known or k != "a" else None for k in name] for name in names]
    run = tf.function(
        lambda left, right: einsum(left, right, equation),
        input_signature=[tf.TensorSpec(shape, tf.float64) for shape in shapes],
    )
    np.testing.assert_allclose(run(*factors).numpy(), np.einsum(equation, *factors), rtol=0, atol=1e-12)

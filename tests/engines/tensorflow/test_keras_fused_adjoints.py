"""Attention and convolutions in one adjoint: recognised wherever they are, equal to operation by operation in float64."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from tiers import mostly_wide

import deepshap
from deepshap.engines.tensorflow import adjoints, fused_adjoints, rules, tracer
from deepshap.kernels import jit_threshold

STEPS, FEATURES, HEADS, WIDTH = 9, 4, 2, 3
DRAWN = np.random.default_rng(0)
Q, K = (DRAWN.normal(size=(FEATURES, HEADS, WIDTH)) for _ in "qk")
V = DRAWN.normal(size=(FEATURES, HEADS, WIDTH + 1))
OUT = DRAWN.normal(size=(STEPS, HEADS, WIDTH + 1))
MASK = np.where(np.tri(STEPS) > 0, 0.0, -1e9)
X, REFERENCES = DRAWN.normal(size=(3, STEPS, FEATURES)), DRAWN.normal(size=(5, STEPS, FEATURES))
X[0] = REFERENCES[1]  # a pair that does not differ
X[1] = REFERENCES[2] + 1e-4 * X[1]  # one that is close


def projected(x, weights):
    return tf.einsum("ntf,fhi->nthi", x, tf.cast(weights, x.dtype))


def written_by(scores, result):
    """Attention by two equations, of what has the heads behind the steps."""

    def run(x):
        q, k, v = (projected(x, w) for w in (Q, K, V))
        factors = (q, k) if scores.startswith("nthi") else (k, q)
        weights = tf.nn.softmax(tf.einsum(scores, *factors) * 0.7 + tf.cast(MASK, x.dtype))
        return tf.einsum(result, *((weights, v) if result.startswith("nhts") else (v, weights)))

    return run


def by_matrices(x):
    q, k, v = (tf.transpose(projected(x, w), [0, 2, 1, 3]) for w in (Q, K, V))
    return tf.transpose(tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 0.7) @ v, [0, 2, 1, 3])


def of_one_head(x):
    q, k = (projected(x, w)[:, :, 0] for w in (Q, K))
    v = projected(x, V)
    weights = tf.nn.softmax(tf.matmul(q, tf.transpose(k, [0, 2, 1])))
    return tf.reshape(weights @ tf.reshape(v, [-1, STEPS, HEADS * (WIDTH + 1)]), [-1, STEPS, HEADS, WIDTH + 1])


def with_weights_elsewhere(x):
    """What else uses scores and weights has its share."""
    q, k, v = (projected(x, w) for w in (Q, K, V))
    scores = tf.einsum("nthi,nshi->nhts", q, k)
    weights = tf.nn.softmax(scores)
    return tf.einsum("nhts,nshw->nthw", weights, v) * tf.transpose(weights[..., :1] + scores[..., 1:2], [0, 2, 1, 3])


def between(change, scores="nthi,nshi->nhts", result="nhts,nshw->nthw"):
    """Attention with something between its first product and softmax."""

    def run(x):
        made = change(tf.einsum(scores, projected(x, Q), projected(x, K)))
        return tf.einsum(result, tf.nn.softmax(made), projected(x, V))

    return run


FORMS = {
    "einsum": written_by("nthi,nshi->nhts", "nhts,nshw->nthw"),
    "einsum, keys and values first": written_by("nshi,nthi->nhts", "nshw,nhts->nthw"),
    "einsum, width not last": lambda x: tf.einsum("nhwt->nthw", written_by("nthi,nshi->nhts", "nhts,nshw->nhwt")(x)),
    "matrices": by_matrices,
    "one head": of_one_head,
    "weights used elsewhere": with_weights_elsewhere,
    "between heads": between(tf.identity, "ntgi,nthi->ntgh", "ntgh,nthw->ntgw"),
}
OTHERS = {
    "scores put in the place of others": between(lambda z: tf.where(MASK < 0, tf.cast(0.1, z.dtype), z)),
    "each score times a number of its own": between(lambda z: z * tf.cast(OUT[:, 0, 0], z.dtype)),
    "scores added to each other": between(lambda z: z + tf.reverse(z, [-1])),
    "one score for all keys": between(lambda z: z[..., :1] + tf.cast(MASK / 1e9, z.dtype)),
    "queries that are summed": between(tf.identity, result="nhts,nthw->nshw"),
}


@pytest.fixture
def kernels(monkeypatch):
    """Run kernels for the smallest job and in threads, or none; note which attention they have done."""
    runs, original = [], fused_adjoints._by_kernel
    monkeypatch.setattr(jit_threshold, "THREADS_BEYOND", 0)

    def noted(*given):
        found = original(*given)
        runs.append(found is not None)
        return found

    monkeypatch.setattr(fused_adjoints, "_by_kernel", noted)

    def use(yes):
        monkeypatch.setattr(jit_threshold.PAIRS, "threshold", 0 if yes else np.inf)
        runs.clear()
        return runs

    return use


def explained(run, dtype):
    """All attributions, of two outputs."""

    def model(x):
        kept = tf.einsum("nthw,thw->nh", tf.tanh(run(x)), tf.cast(OUT, x.dtype))
        return tf.ensure_shape(kept, [None, HEADS])

    return np.asarray(
        deepshap.DeepExplainer(model, REFERENCES.astype(dtype), progress=False).shap_values(X.astype(dtype))
    )


def product_by_product(run, monkeypatch):
    """The same in float64, of the rules of single operations."""
    with monkeypatch.context() as patched:
        patched.setattr(tracer, "match_attention", lambda step, makers: None)
        return explained(run, "float64")


@pytest.mark.parametrize("name", FORMS)
def test_attention_in_one_pass_gives_what_its_operations_give(name, kernels, monkeypatch):
    runs = kernels(False)
    expected = product_by_product(FORMS[name], monkeypatch)
    assert not runs
    for yes in (False, True):
        for dtype, rounding in (("float64", 1e-12), ("float32", 2e-5)):
            runs = kernels(yes)
            np.testing.assert_allclose(
                explained(FORMS[name], dtype), expected, atol=rounding * abs(expected).max(), rtol=0
            )
            assert runs == [yes]


@pytest.mark.parametrize("pairs", [0, 2, 7])
@pytest.mark.parametrize("name", mostly_wide(FORMS, {"einsum", "one head"}))
def test_parts_of_the_pairs_give_what_all_give(name, pairs, kernels, monkeypatch):
    """Of 3 examples and 5 references: one pair at a time, then two examples, then three with two references."""
    runs = kernels(False)
    whole, heads = explained(FORMS[name], "float64"), 1 if name == "one head" else HEADS
    monkeypatch.setattr(fused_adjoints, "SCORES", pairs * heads * STEPS**2)
    np.testing.assert_allclose(explained(FORMS[name], "float64"), whole, atol=1e-14 * abs(whole).max(), rtol=0)
    assert runs == [False, False]


def test_what_the_plain_rules_take_does_not_grow_with_the_pairs(monkeypatch):
    examples, references, heads, steps, width = 40, 50, 2, 16, 4
    sides = [
        DRAWN.normal(size=(rows, heads, *shape)).astype("float32")
        for shape in [(steps, width)] * 2 + [(width, steps)] + [(steps, steps)] * 2 + [(steps,)]
        for rows in (examples, references)
    ]
    m = DRAWN.normal(size=(references, examples, heads, steps, width)).astype("float32")
    scores = references * examples * heads * steps**2
    monkeypatch.setattr(fused_adjoints, "SCORES", scores // 20)
    tracemalloc.start()
    try:
        made = fused_adjoints._by_formulas(m, sides, 1.0)
        taken = tracemalloc.get_traced_memory()[1] - sum(v.nbytes for v in made)
    finally:
        tracemalloc.stop()
    assert taken < scores * m.itemsize / 2  # all at once they take some seven of all scores


@pytest.mark.parametrize("name", OTHERS)
def test_other_products_of_weights_are_left_alone(name, kernels, monkeypatch):
    expected = product_by_product(OTHERS[name], monkeypatch)
    runs = kernels(True)
    found = explained(OTHERS[name], "float64")
    np.testing.assert_allclose(found, expected, atol=1e-12 * abs(expected).max(), rtol=0)
    assert not runs


def test_rows_masked_as_a_whole_are_left_to_the_plain_rule(kernels, monkeypatch):
    run = between(lambda z: z + tf.cast(np.where(np.arange(STEPS) == 2, -2e4, 0.0)[:, None], z.dtype))
    expected = product_by_product(run, monkeypatch)
    runs = kernels(True)
    np.testing.assert_allclose(explained(run, "float64"), expected, atol=1e-12 * abs(expected).max(), rtol=0)
    assert runs == [False]


def test_a_rule_of_the_user_for_softmax_is_asked(kernels, monkeypatch):
    run, asked = between(tf.identity), []
    expected = product_by_product(run, monkeypatch)
    runs = kernels(True)
    deepshap.register_rule("Softmax", lambda step, m: asked.append(step) or rules.softmax(step, m))
    try:
        np.testing.assert_allclose(explained(run, "float64"), expected, atol=1e-12 * abs(expected).max(), rtol=0)
    finally:
        deepshap.unregister_rule("Softmax")
    assert asked
    assert not runs


# ---------------------------------------------------------------------- convolutions
RANDOM = np.random.default_rng(0)
LONG_X, LONG_REFERENCES = RANDOM.normal(size=(3, 30, 4)), RANDOM.normal(size=(5, 30, 4))
LONG_X[0] = LONG_REFERENCES[1]  # a pair that does not differ
LINE, LONG, FIELD = (RANDOM.normal(size=(*sizes, 4, 3)) for sizes in ((3,), (4,), (2, 3)))
WIDE = RANDOM.normal(size=(3, 5, 3))
WEIGHTS = RANDOM.normal(size=(200, 2))


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


CONVOLUTIONS = {
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
NOT_FUSED = {  # with how many of their convolutions are pulled back as a whole, without what is around them
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


def explained_convolution(run, dtype):
    """All attributions, of two outputs."""

    def model(x):
        flat = tf.reshape(tf.nn.relu(run(x)), [tf.shape(x)[0], -1])
        size = flat.shape[1] or np.prod(run(tf.zeros([1, 30, 4], dtype)).shape)
        return tf.ensure_shape(flat, [None, size]) @ tf.cast(WEIGHTS[:size], dtype)

    explainer = deepshap.DeepExplainer(model, LONG_REFERENCES.astype(dtype), progress=False)
    return np.asarray(explainer.shap_values(LONG_X.astype(dtype)))


def convolution_one_by_one(run, monkeypatch):
    """The same in float64, of TensorFlow's own gradients of single operations."""
    with monkeypatch.context() as patched:
        patched.setattr(tracer, "match_convolution", lambda step, makers: None)
        for name in ("Pad", "StridedSlice"):
            patched.delitem(adjoints.ADJOINTS, name)
        return explained_convolution(run, "float64")


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_as_a_whole_gives_what_its_operations_give(name, wholes, monkeypatch):
    expected = convolution_one_by_one(CONVOLUTIONS[name], monkeypatch)
    assert not wholes
    for dtype, rounding in (("float64", 1e-12), ("float32", 2e-5)):
        found = explained_convolution(CONVOLUTIONS[name], dtype)
        np.testing.assert_allclose(found, expected, atol=rounding * abs(expected).max(), rtol=0)
        assert len(wholes) == 1
        wholes.clear()


@pytest.mark.parametrize("name", NOT_FUSED)
def test_what_is_no_part_of_it_goes_back_by_itself(name, wholes, monkeypatch):
    run, count = NOT_FUSED[name]
    expected = convolution_one_by_one(run, monkeypatch)
    found = explained_convolution(run, "float64")
    np.testing.assert_allclose(found, expected, atol=1e-12 * abs(expected).max(), rtol=0)
    assert len(wholes) == count


def test_what_else_uses_a_part_of_it_has_its_share(wholes, monkeypatch):
    """What is padded, and what is convolved before its bias, go elsewhere too."""

    def run(x):
        padded = tf.pad(x, [[0, 0], [2, 0], [0, 0]])
        made = tf.nn.conv1d(padded, tf.cast(LINE, x.dtype), 1, "VALID")
        return tf.nn.relu(made) * tf.tanh(made) + tf.reduce_sum(tf.tanh(padded[:, 1:-1]), [1, 2], keepdims=True)

    expected = convolution_one_by_one(run, monkeypatch)
    found = explained_convolution(run, "float64")
    np.testing.assert_allclose(found, expected, atol=1e-12 * abs(expected).max(), rtol=0)
    assert wholes

"""Products in Einstein's notation are those of NumPy, whatever the order of their indices and whichever sizes are known."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deepshap.engines.tensorflow.adjoints import einsum

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

"""The kernels for a GPU become a GPU's code; needs none. ``test_triton.py`` runs this."""

from __future__ import annotations

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from deepshap.kernels import steps_on_gpu

POINTERS = ("m_h", "m_y", "carry", "m_z", "x", "r", "m")
ROWS = ("x_rows", "r_rows", "places")
KERNELS = {
    "LSTM": (steps_on_gpu._lstm, {}),
    "GRU": (steps_on_gpu._gru, {}),
    "tanh RNN": (steps_on_gpu._rnn, {"secant": steps_on_gpu._tanh}),
    "relu RNN": (steps_on_gpu._rnn, {"secant": steps_on_gpu._relu}),
    "contributions": (steps_on_gpu._contributions, {}),
}


@pytest.mark.parametrize("generation", [80, 90])  # A100, H100
@pytest.mark.parametrize("number", ["fp32", "fp64"])
@pytest.mark.parametrize("name", KERNELS)
def test_compiled(name, number, generation):
    """To the GPU's own code."""
    kernel, options = KERNELS[name]
    sizes = {"units": 100, "rows": 8, "width": 64, "references": 32}
    constants = {key: value for key, value in {**sizes, **options}.items() if key in kernel.arg_names}
    types = dict.fromkeys(POINTERS, f"*{number}") | dict.fromkeys(ROWS, "*i64") | {"totals": "*fp64"}
    signature = {key: "constexpr" if key in constants else types.get(key, "i32") for key in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", generation, 32))
    assert made.asm["cubin"]

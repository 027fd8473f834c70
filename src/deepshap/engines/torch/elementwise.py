"""The rescale rule in one pass on the CPU: slopes of pairs, made once for all explained outputs, times multipliers.

What the plain rule (``steps.rescale``) does in several passes over all pairs. It stays: for what has no kernel, and as the oracle
of these.
"""

# The bodies of kernels are Numba's, which has types of its own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ...mathematics import secants
from .compiled import compiled, relu, sigmoid, tanh
from .threads import in_threads

RELU, TANH, SIGMOID = range(3)
KINDS = {secants.relu: RELU, secants.tanh: TANH, secants.sigmoid: SIGMOID}
COMPILE_BEYOND = 20_000_000  # multipliers, some 40 ms without a kernel; compiling one takes a second
THREADS_BEYOND = 2_000_000  # multipliers; to start a thread takes a millisecond
_work: dict[Any, int] = {}


@cache
def _kernel(kind: int) -> Any:
    """One pass for a kind of secant, which is a constant to the compiler."""

    @compiled
    def kernel(m, found, x, r, y, y_r, first, last):
        """``m`` and ``found`` are (outputs, references, ahead, examples, behind), x (ahead, examples, behind), and r alike."""
        outputs, _, ahead, examples, behind = m.shape
        slopes = np.empty(behind, m.dtype)
        for b in range(first, last):
            for p in range(ahead):
                for n in range(examples):
                    xs, rs, ys, y_rs = x[p, n], r[p, b], y[p, n], y_r[p, b]
                    for q in range(behind):
                        if kind == RELU:
                            slopes[q] = relu(xs[q], rs[q], ys[q], y_rs[q])
                        elif kind == TANH:
                            slopes[q] = tanh(xs[q], rs[q], ys[q], y_rs[q])
                        else:
                            slopes[q] = sigmoid(xs[q], rs[q], ys[q], y_rs[q])
                    for k in range(outputs):
                        given, made = m[k, b, p, n], found[k, b, p, n]
                        for q in range(behind):
                            made[q] = given[q] * slopes[q]

    return kernel


def pass_for(secant: secants.Secant | None, m: Tensor, x: Tensor) -> Callable[..., Tensor] | None:
    """The one pass for a secant, if there is a kernel and there has been enough work to be worth its compilation.

    ``m`` are the multipliers (outputs, references, *shape of x). The pass takes them, the axis of the rows, and both sides of
    input and output.
    """
    if secant not in KINDS or m.device.type != "cpu" or numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return None
    if m.dtype not in (torch.float32, torch.float64) or x.dtype != m.dtype or m.shape[2:] != x.shape:
        return None
    kind = KINDS[secant]
    key = kind, m.dtype
    _work[key] = _work.get(key, 0) + m.numel()
    return partial(_pass, _kernel(kind)) if _work[key] >= COMPILE_BEYOND else None


def _pass(kernel: Any, m: Tensor, axis: int, x: Tensor, r: Tensor, y: Tensor, y_r: Tensor) -> Tensor:
    """Multipliers of the input."""
    ahead, behind = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    sides = [v.reshape(ahead, v.shape[axis], behind).contiguous().numpy() for v in (x, r, y, y_r)]
    m = m.contiguous()
    found, references = torch.empty_like(m), m.shape[1]
    arrays = [v.view(*m.shape[:2], ahead, x.shape[axis], behind).numpy() for v in (m, found)]
    threads = torch.get_num_threads() if m.numel() >= THREADS_BEYOND else 1
    blocks = [(int(b[0]), int(b[-1]) + 1) for b in np.array_split(np.arange(references), min(threads, references))]
    in_threads([partial(kernel, *arrays, *sides, *block) for block in blocks])
    return found

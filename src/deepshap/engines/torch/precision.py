"""Float32 products without shortcuts: a GPU's TF32 rounds to ten bits, and no sum of such numbers matches to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply float32 numbers as float32 meanwhile, whatever the user allows torch otherwise."""
    backends: Any = torch.backends
    products = [backends.cuda.matmul, backends.cudnn]
    # Since torch 2.9 there is a second set of switches, and torch wants the two to agree.
    kinds = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn] if hasattr(backends.cudnn, "rnn") else []
    with ExitStack() as stack:
        for kind in kinds:
            stack.callback(setattr, kind, "fp32_precision", kind.fp32_precision)
        _keep_matmul_precision(stack)
        for product in products:
            _keep(stack, product)
        for product in products:
            product.allow_tf32 = False
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield


def _keep(stack: ExitStack, product: Any) -> None:
    try:
        stack.callback(setattr, product, "allow_tf32", product.allow_tf32)
    except RuntimeError:  # the user set the newer switches, and torch refuses to read the older
        return


def _keep_matmul_precision(stack: ExitStack) -> None:
    try:
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    except RuntimeError:
        return
    torch.set_float32_matmul_precision("highest")  # of a processor too

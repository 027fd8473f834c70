"""Float32 products without shortcuts: a GPU's TF32 rounds to ten bits, and no sum of such numbers matches to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

BACKENDS: Any = torch.backends
PRODUCTS = BACKENDS.cuda.matmul, BACKENDS.cudnn
# Since torch 2.9 there is a second set of switches, and torch wants the two to agree.
KINDS = (BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn) if hasattr(BACKENDS.cudnn, "rnn") else ()


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply float32 numbers as float32 meanwhile, whatever the user allows torch otherwise."""
    put_back: list[Callable[[], None]] = [partial(setattr, k, "fp32_precision", k.fp32_precision) for k in KINDS]
    try:
        _set_matmul_precision(put_back)
        for product in PRODUCTS:
            _note(put_back, product)
        for product in PRODUCTS:
            product.allow_tf32 = False
        for kind in KINDS:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for one in reversed(put_back):
            one()


def _note(put_back: list[Callable[[], None]], product: Any) -> None:
    try:
        put_back.append(partial(setattr, product, "allow_tf32", product.allow_tf32))
    except RuntimeError:  # the user set the newer switches, and torch refuses to read the older
        return


def _set_matmul_precision(put_back: list[Callable[[], None]]) -> None:
    try:
        put_back.append(partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()))
    except RuntimeError:
        return
    torch.set_float32_matmul_precision("highest")  # of a processor too

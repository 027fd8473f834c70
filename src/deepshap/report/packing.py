"""Arrays as text that a browser unpacks: shuffled bytes, gzip, base64.

A packed blob is, after base64 and gzip, a little-endian ``uint32`` with the length of a JSON header, the header, and then
the arrays of the header one after the other. Numbers lie with their first bytes together, then their second bytes, and so
on: bytes of one kind compress better.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

DIGITS = 4  # significant decimal digits of a packed attribution


def pack(content: Mapping[str, Any]) -> str:
    """Pack numeric arrays, and lists of anything that JSON can hold, under their names."""
    header, payload = {}, []
    for name, item in content.items():
        if isinstance(item, np.ndarray):
            item = np.ascontiguousarray(item)
            bytes_ = item.view(np.uint8).reshape(item.size, item.itemsize).T.tobytes() if item.size else b""
            header[name] = {"type": item.dtype.name, "shape": item.shape, "bytes": len(bytes_)}
        else:
            bytes_ = json.dumps(item, ensure_ascii=False, allow_nan=False).encode()
            header[name] = {"type": "json", "bytes": len(bytes_)}
        payload.append(bytes_)
    head = json.dumps(header).encode()
    blob = len(head).to_bytes(4, "little") + head + b"".join(payload)
    return base64.b64encode(gzip.compress(blob, compresslevel=6, mtime=0)).decode("ascii")


def decimal(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Round to ``DIGITS`` significant decimal digits: ``mantissa * 10 ** exponent``, two int16 arrays.

    A page that shows that many digits then shows those of the value itself, and the arrays compress to about two bytes
    per value.
    """
    values = np.asarray(values, np.float64)
    size = np.abs(values)
    there = size >= 1e-300
    exponent = np.floor(np.log10(size, where=there, out=np.zeros_like(size))).astype(np.int16) - (DIGITS - 1)
    mantissa = np.rint(_scaled(np.where(there, values, 0.0), -exponent))
    over = np.abs(mantissa) >= 10**DIGITS  # 9.9996 rounds up to a digit more
    exponent = np.where(there, exponent + over, 0).astype(np.int16)
    mantissa = np.where(over, np.sign(mantissa) * 10 ** (DIGITS - 1), mantissa).astype(np.int16)
    return {f"{name}_mantissa": mantissa, f"{name}_exponent": exponent}


def _scaled(values: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Return ``values * 10 ** power``, dividing by positive powers of ten: those are exact up to 10 ** 22."""
    up = values * 10.0 ** np.maximum(power, 0)
    return up / 10.0 ** np.maximum(-power, 0)

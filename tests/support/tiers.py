"""Which parameters of a test `make test` runs."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

import pytest


def mostly_wide(
    values: Iterable[Any], kept: Container[Any], key: Callable[[Any], Any] = lambda value: value
) -> list[Any]:
    """The parameters, of which all but `kept` are left to `make test-wide`; `key` is what `kept` holds of a value."""
    return [pytest.param(value, marks=() if key(value) in kept else pytest.mark.wide) for value in values]

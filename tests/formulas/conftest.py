"""How formulas are called."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def without_warnings():
    """As whoever calls formulas with arrays of NumPy."""
    with np.errstate(all="ignore"):
        yield

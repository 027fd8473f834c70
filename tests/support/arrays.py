"""What makes arrays of each framework, for tests of the mathematics."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import torch

every_framework = pytest.mark.parametrize(
    "array", [torch.tensor, tf.constant, np.array], ids=["torch", "tensorflow", "numpy"]
)
frameworks_of_models = pytest.mark.parametrize("array", [torch.tensor, tf.constant], ids=["torch", "tensorflow"])

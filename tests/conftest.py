"""Settings of all tests."""

import pytest
import torch

pytest.register_assert_rewrite("helpers")
torch.set_num_threads(1)

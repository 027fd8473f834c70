"""The table of all models: library, name, and the function that builds it."""

from __future__ import annotations

from collections.abc import Callable

import forecasting
import huggingface
import of_keras
import others
import recurrent
import without_cuda  # noqa: F401 (before whatever imports torchvision)
from case import Case

MODELS: dict[str, dict[str, Callable[[], Case]]] = {
    **recurrent.MODELS,
    **huggingface.MODELS,
    **forecasting.MODELS,
    **others.MODELS,
    **of_keras.MODELS,
}

"""Exact Deep SHAP for recurrent networks and every PyTorch model around them."""

from .errors import (
    AdditivityError,
    AdditivityWarning,
    BatchMixingError,
    ControlFlowError,
    DeepShapError,
    InputError,
    MemoryBudgetError,
    NonFiniteError,
    UnsupportedOperationError,
)
from .explainer import DeepExplainer
from .registry import register_rule, unregister_rule

__version__ = "0.1.0"

__all__ = [
    "AdditivityError",
    "AdditivityWarning",
    "BatchMixingError",
    "ControlFlowError",
    "DeepExplainer",
    "DeepShapError",
    "InputError",
    "MemoryBudgetError",
    "NonFiniteError",
    "UnsupportedOperationError",
    "register_rule",
    "unregister_rule",
]

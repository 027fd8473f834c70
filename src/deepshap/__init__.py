"""Exact Deep SHAP for recurrent networks and every PyTorch model around them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .drop_in import patch_shap, unpatch_shap
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
from .explanation import Explanation, JointExplanation
from .registry import register_rule, unregister_rule

if TYPE_CHECKING:
    from .cells import LSTMShapBackwardHook, gate_attribution, product_attribution, register_lstm_shap_hook
    from .pytorch.handlers import LSTMShapHandler, ModuleCall

__version__ = "0.1.0"

__all__ = [
    "AdditivityError",
    "AdditivityWarning",
    "BatchMixingError",
    "ControlFlowError",
    "DeepExplainer",
    "DeepShapError",
    "Explanation",
    "InputError",
    "JointExplanation",
    "LSTMShapBackwardHook",
    "LSTMShapHandler",
    "MemoryBudgetError",
    "ModuleCall",
    "NonFiniteError",
    "UnsupportedOperationError",
    "gate_attribution",
    "patch_shap",
    "product_attribution",
    "register_lstm_shap_hook",
    "register_rule",
    "unpatch_shap",
    "unregister_rule",
]

# Names whose modules need torch, imported when they are first used.
_LAZY = {
    "LSTMShapBackwardHook": ".cells",
    "LSTMShapHandler": ".pytorch.handlers",
    "ModuleCall": ".pytorch.handlers",
    "captum": ".captum",
    "gate_attribution": ".cells",
    "product_attribution": ".cells",
    "register_lstm_shap_hook": ".cells",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LAZY[name], __name__)
    return module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)

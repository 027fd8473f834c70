"""Exact Deep SHAP for recurrent networks and every PyTorch or Keras model around them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from .cells import LSTMShapBackwardHook, gate_attribution, product_attribution, register_lstm_shap_hook
    from .drop_in import patch_shap, unpatch_shap
    from .engines.user_rules import register_rule, unregister_rule
    from .explainer import DeepExplainer
    from .handlers import LSTMShapHandler, ModuleCall
    from .inspection import Inspection, check
    from .results import Explanation, JointExplanation, load
    from .tables import Sequences, sequences

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
    "Inspection",
    "JointExplanation",
    "LSTMShapBackwardHook",
    "LSTMShapHandler",
    "MemoryBudgetError",
    "ModuleCall",
    "NonFiniteError",
    "Sequences",
    "UnsupportedOperationError",
    "check",
    "gate_attribution",
    "load",
    "patch_shap",
    "product_attribution",
    "register_lstm_shap_hook",
    "register_rule",
    "sequences",
    "unpatch_shap",
    "unregister_rule",
]

# Names by the modules that they come from, imported when they are first used: torch, shap and matplotlib take their time.
_LAZY = {
    "DeepExplainer": ".explainer",
    "Explanation": ".results",
    "Inspection": ".inspection",
    "JointExplanation": ".results",
    "LSTMShapBackwardHook": ".cells",
    "LSTMShapHandler": ".handlers",
    "ModuleCall": ".handlers",
    "Sequences": ".tables",
    "captum": ".captum",
    "check": ".inspection",
    "datasets": ".datasets",
    "gate_attribution": ".cells",
    "load": ".results",
    "patch_shap": ".drop_in",
    "plots": ".plots",
    "product_attribution": ".cells",
    "register_lstm_shap_hook": ".cells",
    "register_rule": ".engines.user_rules",
    "sequences": ".tables",
    "unpatch_shap": ".drop_in",
    "unregister_rule": ".engines.user_rules",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LAZY[name], __name__)
    return module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})

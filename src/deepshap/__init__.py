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
    UserCodeError,
)

if TYPE_CHECKING:
    from .compat.captum import patch_captum, unpatch_captum
    from .compat.lstm import LSTMShapBackwardHook, gate_attribution, product_attribution, register_lstm_shap_hook
    from .compat.lstm.handler import LSTMShapHandler
    from .compat.shap import patch_shap, unpatch_shap
    from .dataset.batch_explainer import BatchExplainer
    from .dataset.explanation_dataset import ExplanationDataset, load, status
    from .dataset.run import explain_dataset
    from .engines.handlers import ModuleCall
    from .engines.user_rules import register_rule, unregister_rule
    from .evaluation import Faithfulness, Inspection, check, faithfulness
    from .explainer import DeepExplainer
    from .results import Explanation, JointExplanation
    from .tables import Sequences, sequences

__version__ = "0.1.0"

__all__ = [
    "AdditivityError",
    "AdditivityWarning",
    "BatchExplainer",
    "BatchMixingError",
    "ControlFlowError",
    "DeepExplainer",
    "DeepShapError",
    "Explanation",
    "ExplanationDataset",
    "Faithfulness",
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
    "UserCodeError",
    "check",
    "explain_dataset",
    "faithfulness",
    "gate_attribution",
    "load",
    "patch_captum",
    "patch_shap",
    "product_attribution",
    "register_lstm_shap_hook",
    "register_rule",
    "sequences",
    "status",
    "unpatch_captum",
    "unpatch_shap",
    "unregister_rule",
]

# Names by the modules that they come from, imported when they are first used: torch, shap and matplotlib take their time.
_LAZY = {
    "BatchExplainer": ".dataset.batch_explainer",
    "DeepExplainer": ".explainer",
    "Explanation": ".results",
    "ExplanationDataset": ".dataset.explanation_dataset",
    "Faithfulness": ".evaluation",
    "Inspection": ".evaluation",
    "JointExplanation": ".results",
    "LSTMShapBackwardHook": ".compat.lstm",
    "LSTMShapHandler": ".compat.lstm.handler",
    "ModuleCall": ".engines.handlers",
    "Sequences": ".tables",
    "captum": ".captum",
    "check": ".evaluation",
    "datasets": ".datasets",
    "explain_dataset": ".dataset.run",
    "faithfulness": ".evaluation",
    "forecasting": ".forecasting",
    "gate_attribution": ".compat.lstm",
    "load": ".dataset.explanation_dataset",
    "patch_captum": ".compat.captum",
    "patch_shap": ".compat.shap",
    "plots": ".plots",
    "ray": ".dataset.ray",
    "product_attribution": ".compat.lstm",
    "register_lstm_shap_hook": ".compat.lstm",
    "register_rule": ".engines.user_rules",
    "sequences": ".tables",
    "status": ".dataset.explanation_dataset",
    "unpatch_captum": ".compat.captum",
    "unpatch_shap": ".compat.shap",
    "unregister_rule": ".engines.user_rules",
}


_MODULES = {"captum", "datasets", "forecasting", "plots", "ray"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LAZY[name], __name__)
    return module if module.__name__.rpartition(".")[2] == name and name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*__all__, *_LAZY, "__version__"})

"""captum's DeepLIFT classes on the exact engine: the same signatures and forms of results, the values of ``DeepExplainer``.

captum need not be installed. Where it is, these classes derive from its base classes, so that its tools accept them:

>>> from deepshap.captum import DeepLiftShap                       # instead of: from captum.attr import DeepLiftShap
>>> DeepLiftShap(model).attribute(inputs, baselines, target=3)

What is different from captum: docs/captum.md.
"""

from .compat.captum import (
    DeepLift,
    DeepLiftShap,
    LayerDeepLift,
    LayerDeepLiftShap,
    NeuronDeepLift,
    NeuronDeepLiftShap,
)

__all__ = [
    "DeepLift",
    "DeepLiftShap",
    "LayerDeepLift",
    "LayerDeepLiftShap",
    "NeuronDeepLift",
    "NeuronDeepLiftShap",
]

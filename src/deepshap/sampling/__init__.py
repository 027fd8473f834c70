"""Which pairs and coalitions are evaluated for an effort, and how near the values come to the Shapley values.

- ``comparisons``: what a method is and what it may ask for; Deep SHAP.
- ``players``: which cells of a row join coalitions together.
- ``coalitions``: all coalitions; random orders and what players add along them.
- ``sweeps``: permutation sampling over all references, by outputs alone.
- ``paths``: Deep SHAP corrected on some references.
- ``choice``: which of these an effort buys.
- ``estimates``: running sums and standard errors.
- ``reliability``: how far Deep SHAP is from the Shapley values.

docs/mathematics-of-effort.md has the formulas.
"""

from .coalitions import AllCoalitions
from .comparisons import (
    Attribution,
    DeepShap,
    Evaluation,
    KnownContribution,
    Method,
    Parts,
    Uncertainty,
    WeightedComparison,
    WeightedDeepShap,
)
from .estimates import RunningEstimate
from .paths import Paths
from .players import Players
from .reliability import Reliability
from .sweeps import Sweeps

__all__ = [
    "AllCoalitions",
    "Attribution",
    "DeepShap",
    "Evaluation",
    "KnownContribution",
    "Method",
    "Parts",
    "Paths",
    "Players",
    "Reliability",
    "RunningEstimate",
    "Sweeps",
    "Uncertainty",
    "WeightedComparison",
    "WeightedDeepShap",
]

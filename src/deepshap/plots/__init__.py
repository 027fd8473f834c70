"""Pictures of attributions over time (needs matplotlib: the extra `deepshap[plots]`).

Each function draws into the `ax` it is given, or else into a new figure, and returns what it drew into. None
calls `plt.show`. Red speaks for the explained output, blue against it, grey is the data itself.
"""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("pictures need matplotlib: pip install 'deepshap[plots]'") from error

from deepshap.plots.groups import feature_importance_by_group, importance_over_time, relative_time_profile
from deepshap.plots.sequence import sequence_heatmap
from deepshap.plots.style import BLUE, EVIDENCE, RED, panels

__all__ = [
    "BLUE",
    "EVIDENCE",
    "RED",
    "feature_importance_by_group",
    "importance_over_time",
    "panels",
    "relative_time_profile",
    "sequence_heatmap",
]

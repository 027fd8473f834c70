"""Private interfaces of slicer, on which ``shap.Explanation`` is built: the axes of each array.

slicer has no public interface for them. They exist in slicer 0.0.7 and 0.0.8; without them explanations raise an error.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from ..errors import UnsupportedOperationError


def tracked_arrays(slicer: Any) -> dict[str, Any]:
    """Return all arrays that a slicer holds beside one another, labels included, with the axes that they follow."""
    if not hasattr(slicer, "_iter_tracked"):
        raise _missing("_iter_tracked")
    return dict(slicer._iter_tracked(include_aliases=True))


def tracked_objects(slicer: Any) -> dict[str, Any]:
    """Return the arrays that are no labels: those that the slicer itself reads, so that a change of it counts."""
    if not hasattr(slicer, "_objects"):
        raise _missing("_objects")
    return slicer._objects


def tracked_labels(slicer: Any) -> dict[str, Any]:
    """Return the labels alone."""
    if not hasattr(slicer, "_aliases"):
        raise _missing("_aliases")
    return dict(slicer._aliases)


def _missing(name: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"slicer {metadata.version('slicer')} has no Slicer.{name}, which explanations need to keep values and labels together. "
        "Install slicer==0.0.8."
    )

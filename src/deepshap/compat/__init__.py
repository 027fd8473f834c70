"""Interfaces of other tools on the exact engine: shap's explainer, captum's classes and hand-written LSTM cells.

``patch_shap`` and ``patch_captum`` replace the other tool's classes by those of deepshap in the other tool's modules.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any


class Patch:
    """Classes of another package replaced by ours; a context that restores them as they were before."""

    def __init__(self) -> None:
        self.originals: dict[tuple[ModuleType, str], Any] = {}
        self._nested = [True]  # of each block: whether the patch was in effect before

    def apply(self, places: dict[tuple[str, str], Any]) -> Patch:
        """Put our classes into modules, by module and name. Applying twice is the same as once."""
        self._nested.append(bool(self.originals))
        if not self.originals:
            for (path, name), ours in places.items():
                module = import_module(path)
                self.originals[module, name] = getattr(module, name)
                setattr(module, name, ours)
        return self

    def restore(self) -> None:
        """Give the modules their own classes back."""
        while self.originals:
            (module, name), original = self.originals.popitem()
            setattr(module, name, original)

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._nested.pop():
            self.restore()

"""What makes explainers those of shap as soon as shap is imported, by whomever; to import it takes two seconds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


class _Nothing:
    """What there is to be derived from before shap is imported."""


class ShapExplainer(_Nothing):
    """Derived from ``shap.Explainer`` once there is one; explainers need nothing of it, programs ask for it."""


class _Finder(MetaPathFinder):
    """Finds shap as it is found otherwise, and waits for what its import leaves."""

    def __init__(self) -> None:
        self._looking = threading.local()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Tell how shap is imported, and derived from then; of all else nothing."""
        if name != "shap" or getattr(self._looking, "now", False):
            return None
        self._looking.now = True
        try:
            spec = find_spec(name)
        finally:
            self._looking.now = False
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_derive(module: ModuleType) -> None:
            run(module)
            _derive()

        spec.loader.exec_module = run_and_derive  # type: ignore[method-assign]
        return spec


_finder = _Finder()


def _derive() -> None:
    ShapExplainer.__bases__ = (import_module("shap").Explainer,)
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


if "shap" in sys.modules:
    _derive()
else:
    sys.meta_path.insert(0, _finder)

"""Lets the reference show docstrings as they are at run time: those of pictures are completed by a decorator."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import griffe


class Completed(griffe.Extension):
    """Reads the docstrings of pictures from the functions themselves."""

    def on_function_instance(self, *, func: griffe.Function, **_options: Any) -> None:
        """Replace a docstring."""
        module, _, name = func.path.rpartition(".")
        at_top = func.parent is not None and func.parent.is_module
        if at_top and module.startswith("deepshap.plots.") and not name.startswith("_") and func.docstring is not None:
            found = getattr(import_module(module), name, None)
            if found is not None:
                func.docstring.value = found.__doc__

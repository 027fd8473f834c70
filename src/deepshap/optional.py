"""Packages that are needed for some things only: the extras."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def find(path: str) -> Any:
    """Return what a dotted path leads to, or None where the installed version of the package has no such thing.

    The modules called ``_compat`` look all private interfaces of other packages up with it.
    """
    package, *names = path.split(".")
    try:
        found: Any = import_module(package)
        for name in names:
            package = f"{package}.{name}"
            found = getattr(found, name) if hasattr(found, name) else import_module(package)
    except (ImportError, AttributeError):
        return None
    return found


def needed(module: str, why: str, extra: str = "tables") -> Any:
    """Import a module of an extra; where it is missing, say why it is needed and what to install.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{why}: pip install 'deepshap[{extra}]'") from error


def import_pyarrow() -> Any:
    """Return pyarrow with its Parquet files and its functions of columns.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    why = "Parquet files need pyarrow"
    needed("pyarrow.parquet", why)
    needed("pyarrow.compute", why)
    return needed("pyarrow", why)


def import_ray() -> Any:
    """Return ray.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    return needed("ray", "a Ray cluster needs ray", "ray")

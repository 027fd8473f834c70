"""Former home of the packages of the extras, until all imports name ``errors``."""

from .errors import find, import_pyarrow, import_ray, needed

__all__ = ["find", "import_pyarrow", "import_ray", "needed"]

"""Former home of the checks of options, until all imports name ``errors``."""

from .errors import *  # noqa: F403

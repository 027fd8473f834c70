"""Former home of checks and labels, until all imports name ``errors`` and ``explanation.labels``."""

from .errors import check_count, check_names, check_whole, is_whole, listed
from .explanation.labels import (
    PADDING,
    as_array,
    as_labels,
    as_texts,
    duration,
    name_of,
    names_for,
    numbered,
    plural,
    shortened,
    with_plain_texts,
)

__all__ = ["PADDING",
    "as_array", "as_labels", "as_texts", "check_count", "check_names", "check_whole", "duration", "is_whole", "listed",
    "name_of", "names_for", "numbered", "plural", "shortened", "with_plain_texts",
]  # fmt: skip

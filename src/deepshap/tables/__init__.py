"""The one reader of tables: any form of a table as arrays, with ids, times and names.

``columns`` turns frames into tables of pyarrow and columns into arrays, ``times`` decides how times are read, ``reading``
makes rows of lines, ``inputs`` takes what users hand to an explainer, ``files`` and ``parquet`` read files.
"""

from .columns import Table, as_table, check_columns_exist, collected, is_frame, labels, matrix, nested
from .inputs import (
    Labels,
    check_columns_count,
    check_same_order,
    columns_of,
    common_ids,
    in_own_order,
    is_dataset,
    is_xarray,
    names_by_input,
    order_of,
    plain,
)
from .reading import Columns, Decided, Rows, Sequences, Wide, decide, describe, read, resolved, sequences

__all__ = [
    "Columns",
    "Decided",
    "Labels",
    "Rows",
    "Sequences",
    "Table",
    "Wide",
    "as_table",
    "check_columns_count",
    "check_columns_exist",
    "check_same_order",
    "collected",
    "columns_of",
    "common_ids",
    "decide",
    "describe",
    "in_own_order",
    "is_dataset",
    "is_frame",
    "is_xarray",
    "labels",
    "matrix",
    "names_by_input",
    "nested",
    "order_of",
    "plain",
    "read",
    "resolved",
    "sequences",
]

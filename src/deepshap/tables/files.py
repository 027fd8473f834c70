"""Files as tables: text with any separator, Excel, JSON Lines, Parquet, Feather, and the .ts and .arff of the UCR archive.

Of a text file, nothing is guessed that could put a cell into another column. Separator, decimal mark and header are found
where only one reading fits all lines, and ``Table.said`` tells which; otherwise an error asks for the option. All cells
stay texts until it is known what their column is, so that the id ``007`` stays ``007``.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_names, import_pyarrow, needed
from ..explanation.labels import first_few
from .columns import NUMBER, Table, counted, first_of_another_kind
from .parquet import PARQUET, ParquetLines, list_files

PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
TEXTS = (".csv", ".tsv")
TABLES = (*TEXTS, *PARQUET, ".feather", ".arrow", ".jsonl", ".ndjson", ".json", ".xlsx", ".ts", ".arff")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SAMPLE = 2**17  # characters of a text file that its separator is found in


@dataclass(frozen=True)
class FileOptions:
    """How a text file is written, as far as the user says: ``header`` is the line of the names, counted from 1, or "none"."""

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    header: str | None = None


AS_FOUND = FileOptions()


def kind_of(path: Path) -> str | None:
    """Return the ending that says what a file holds, without that of a compression; None if it is no table."""
    name = path.name.lower()
    name = next((name.removesuffix(packed) for packed in PACKED if name.endswith(packed)), name)
    return next((ending for ending in TABLES if name.endswith(ending)), None)


def read_file(
    path: Path, options: FileOptions = AS_FOUND, named: Sequence[str] = (), features: Sequence[str] = ()
) -> Table:
    """Read a file, or all Parquet files below a folder, at once.

    Parameters
    ----------
    path : Path
        The file; its ending says what it is, before ``.gz``, ``.bz2``, ``.xz``, ``.zip`` or ``.zst``.
    options : FileOptions
        How a text file is written.
    named : sequence of str
        The columns of ids, times and variables that the user names: a line in which they stand is the header.
    features : sequence of str
        The columns of values that the user names.

    Raises
    ------
    InputError
        If it cannot be read, or in more than one way; it says what to do.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}.")
    kind, pa = kind_of(path), import_pyarrow()
    if kind in PARQUET or path.is_dir():
        return ParquetLines(list_files(path), named).table()
    try:
        content = _content(path)
        if kind in (".feather", ".arrow"):
            feather = needed("pyarrow.feather", "Feather files need pyarrow")
            return Table(feather.read_table(BytesIO(content), use_threads=False), str(path))
        if kind == ".xlsx":
            return _from_excel(path, content)
        text, encoding = _text(path, content, options.encoding)
    except (ValueError, OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from None
    if kind in (".jsonl", ".ndjson", ".json"):
        return _from_json(path, text)
    if kind == ".ts":
        return _from_ts(path, text)
    if kind == ".arff":
        return _from_arff(path, text)
    return _from_text(path, text, encoding, options, [*named, *features])


def _content(path: Path) -> bytes:
    ending = path.suffix.lower()
    if ending == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
            if len(names) != 1:
                raise InputError(
                    f"{path} holds {len(names)} files ({first_few(names)}), not one: unpack it and name one."
                )
            return archive.read(names[0])
    if ending == ".zst":
        content = import_pyarrow().CompressedInputStream(str(path), "zstd").read()
        return bytes(content)
    opened: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    with opened.get(ending, open)(path, "rb") as stream:
        return bytes(stream.read())


def _text(path: Path, content: bytes, encoding: str | None) -> tuple[str, str]:
    """Return the text of a file and its encoding: by its byte order mark, or UTF-8; any other must be named."""
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    found = encoding or next((name for mark, name in marks.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(found)
    except (UnicodeDecodeError, LookupError) as error:
        if encoding is not None:
            raise InputError(f"{path} cannot be read in the encoding {encoding!r}: {error}") from None
        line = content[: getattr(error, "start", 0)].count(b"\n") + 1
        raise InputError(
            f"{path} is not UTF-8, from line {line} on: read it with pandas.read_csv(path, encoding='cp1252') or "
            "another encoding."
        ) from None
    if "\0" in text:
        raise InputError(
            f"{path} holds zero bytes: if it is a text, read it with pandas.read_csv(path, encoding='utf-16')."
        )
    return text.removeprefix("\ufeff"), found


# ---------------------------------------------------------------------- texts with separators
def _from_text(path: Path, text: str, encoding: str, options: FileOptions, named: Sequence[str]) -> Table:
    pa = import_pyarrow()
    said: list[str] = []
    separator = _separator(path, text, options, named)
    begin, names = _header(path, text, separator, options, named)
    stream = StringIO(text, newline="")
    for _ in range(begin):
        next(stream)
    body = stream.read().rstrip("\r\n")
    comments: list[str] = []

    def of_row(row: Any) -> str:
        if row.text.lstrip().startswith("#"):
            comments.append(row.text)
            return "skip"
        return "error"

    def place(position: int) -> str:
        rows = (line for line, cells in _records(body, separator) if _is_row(cells, len(names)))
        return f"line {begin + next(islice(rows, position, None))}"

    try:
        columns = pa.table({name: pa.array([], pa.string()) for name in names})
        if body:
            columns = needed("pyarrow.csv", "text files need pyarrow").read_csv(
                BytesIO(body.encode("utf-8", "surrogatepass")),
                pa.csv.ReadOptions(
                    use_threads=False,  # they may let an object of Python go when the program has ended, which aborts it
                    column_names=names,
                    block_size=max(2**20, 2 * max(map(len, body.splitlines()))),
                ),
                pa.csv.ParseOptions(
                    delimiter=separator,
                    newlines_in_values=True,
                    ignore_empty_lines=len(names) > 1,
                    invalid_row_handler=of_row,
                ),
                pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
            )
    except pa.ArrowInvalid as error:
        wrong = next(
            ((at, c) for at, c in _records(body, separator) if not _is_row(c, len(names)) and _is_wrong(c)), None
        )
        if wrong is None:
            raise InputError(f"{path} cannot be read as a table: {error}") from None
        head = "the options name" if options.header == "none" else f"the header (line {begin}) has"
        raise InputError(
            f"{path}: line {begin + wrong[0]} has {len(wrong[1])} cells, and {head} {len(names)}: "
            f"{first_few(wrong[1])} for {first_few(names)}. Each line needs a cell for each column. If the names of the columns "
            "stand in another line, read it with pandas.read_csv(path, skiprows=...)."
        ) from None
    _check_no_comments(path, body, separator, begin, columns)
    decimal = options.decimal or _decimal(path, body, separator)
    said.append(f"separated by {SEPARATORS.get(separator, repr(separator))}")
    said += [] if decimal == "." else [f"decimal {SEPARATORS.get(decimal, decimal).removesuffix('s')}"]
    said += [] if encoding == "utf-8" else [f"encoding {encoding}"]
    are_numbers = begin == 1 and any(re.match(NUMBER, name) for name in names)
    said += [] if begin == 1 else [f"names in line {begin}" if begin else "no header"]
    said += [f"names in line 1 ({first_few(names)})"] if are_numbers else []
    said += [f"{len(comments)} lines of comments left out"] if comments else []
    return Table(columns, str(path), place, decimal, said)


def _check_no_comments(path: Path, body: str, separator: str, begin: int, columns: Any) -> None:
    """Raise if a row may be a comment with a cell for each column: it begins with # without quotes, and others do not."""
    pc = import_pyarrow().compute
    marked = np.asarray(pc.starts_with(pc.utf8_ltrim_whitespace(columns.column(0)), "#"))
    if marked.all() or not marked.any():
        return
    lines = list(StringIO(body, newline=""))
    rows = (at for at, cells in _records(body, separator) if _is_row(cells, columns.num_columns))
    wrong = next(
        (at for at, mark in zip(rows, marked, strict=False) if mark and lines[at - 1].lstrip().startswith("#")), None
    )
    if wrong is not None:
        raise InputError(
            f"{path}: line {begin + wrong} begins with '#' and has a cell for each column, so that it may be a comment or a row: "
            "delete it, or put its first cell in quotes."
        )


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Return the records of a text, each with its first line, counted from 1."""
    records, begin = csv.reader(StringIO(text, newline=""), delimiter=separator), 1
    for cells in records:
        yield begin, cells
        begin = records.line_num + 1


def _is_row(cells: list[str], count: int) -> bool:
    return len(cells) == count if count > 1 else len(cells) <= 1


def _is_wrong(cells: list[str]) -> bool:
    return bool(cells) and not cells[0].lstrip().startswith("#")


def _sample(text: str, separator: str, comments: bool = False) -> list[tuple[int, list[str]]]:
    """Return the records at the beginning of a text, without empty lines and, by default, comments."""
    whole = len(text) <= SAMPLE
    records = list(_records(text[:SAMPLE], separator))
    return [
        (at, cells) for at, cells in (records if whole else records[:-1]) if cells and (comments or _is_wrong(cells))
    ]


def _separator(path: Path, text: str, options: FileOptions, named: Sequence[str]) -> str:
    """Return what stands between the cells: what makes as many of every line, more than one."""
    if options.separator is not None:
        separator = {"tab": "\t", "\\t": "\t"}.get(options.separator, options.separator)
        if len(separator) != 1 or separator in '"\r\n':
            raise InputError(f"--separator is a single character or tab, not {options.separator!r}.")
        return separator
    fitting = {}  # separator: whether names of columns stand in the header, whether no line stands above it
    for separator in SEPARATORS:
        cells = [record for _, record in _sample(text, separator)]
        counts = [len(record) for record in cells]
        most = Counter(counts).most_common(1)[0][0] if counts else 1
        first = counts.index(most) if counts else 0
        if most > 1 and counts[first:].count(most) > 0.9 * len(counts[first:]):
            fitting[separator] = bool(named) and set(named) <= {cell.strip() for cell in cells[first]}, not first
    for test in (0, 1):  # the names of columns decide, then that the first line fits too
        fits = [separator for separator, tests in fitting.items() if tests[test]]
        fitting = {fits[0]: fitting[fits[0]]} if len(fits) == 1 else fitting
    if len(fitting) > 1:
        marks = " or ".join(SEPARATORS[mark] for mark in fitting)
        raise InputError(
            f"the cells of {path} may be separated by {marks}: read it with pandas.read_csv(path, sep=...)."
        )
    if fitting:
        return next(iter(fitting))
    return "\t" if ".tsv" in path.name.lower() else ","


def _header(path: Path, text: str, separator: str, options: FileOptions, named: Sequence[str]) -> tuple[int, list[str]]:
    """Return how many lines stand above the rows, and the names of the columns."""
    sample = _sample(text, separator)
    if not sample:
        raise InputError(f"{path} is empty: there is no line with names of columns.")
    if options.header == "none":
        at, cells = sample[0]
        return at - 1, [f"column {i + 1}" for i in range(len(cells))]
    if options.header is not None:
        if not options.header.isdecimal() or not int(options.header):
            raise InputError(f"--header is the line with the names, counted from 1, or none; not {options.header!r}.")
        found = next((one for one in _sample(text, separator, True) if one[0] == int(options.header)), None)
        if found is None:
            raise InputError(f"--header {options.header}: {path} has no names there.")
    else:
        counts = Counter(len(cells) for _, cells in sample)
        count = max(counts, key=lambda length: (counts[length], length))
        found = sample[0]
        for at, cells in sample:  # above the names, lines of one cell are a preamble
            found = (at, cells)
            if len(cells) == count or len([cell for cell in cells if cell.strip()]) > 1:
                break
    at, cells = found
    names = [name.strip().removeprefix("#").strip() for name in cells]
    if not names[0] and all(names[1:]):
        names[0] = "Unnamed: 0"  # an index that pandas or R has written
    if not all(names):
        raise InputError(
            f"{path}: column {names.index('') + 1} has no name in line {at}; is that the header? If not, read it with "
            "pandas.read_csv(path, header=...)."
        )
    if options.header is None and not set(names) <= set(named):
        _check_is_header(path, text, separator, at, names, named)
    check_names(f"the columns of {path}", names)
    end = next((begin for begin, _ in _records(text, separator) if begin > at), len(text.splitlines()) + 1) - 1
    return end, names


def _check_is_header(path: Path, text: str, separator: str, at: int, names: list[str], named: Sequence[str]) -> None:
    """Raise if the line that is taken for the names of columns may be a row, which would be lost.

    Numbers are names only if they count all columns from 0, as pandas' own, or two columns that the user names stand beside.
    """
    digits = [name for name in names if re.match(NUMBER, name)]
    counted_by_pandas = len(names) > 2 and names in (
        [str(i) for i in range(len(names))],
        ["Unnamed: 0", *map(str, range(len(names) - 1))],
    )
    if not digits or counted_by_pandas or len(set(named) & set(names)) > 1:
        return
    above = [
        record for record in _sample(text, separator, True) if record[0] < at and record[1][0].lstrip().startswith("#")
    ]
    comment = next((record for record in reversed(above) if len(record[1]) == len(names)), None)
    if comment is not None:
        raise InputError(
            f"{path}: line {comment[0]} ({first_few(comment[1])}) begins with '#' and is taken for a comment, and line {at} "
            f"holds numbers ({first_few(names)}). If line {comment[0]} names the columns, read it with "
            f"pandas.read_csv(path, skiprows={comment[0] - 1})."
        )
    raise InputError(
        f"{path}: line {at} holds numbers where names of columns should stand ({first_few(names)}). If the file has no "
        f"header, read it with pandas.read_csv(path, header=None); if these are the names, read it with "
        f"pandas.read_csv(path, skiprows={at - 1})."
    )


def _decimal(path: Path, body: str, separator: str) -> str:
    """Return the decimal mark: a comma only where cells with one cannot be thousands, and none has a point."""
    if separator == ",":
        return "."
    cells = [cell.strip() for _, record in _sample(body, separator) for cell in record]
    commas = [cell for cell in cells if re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", cell)]
    if not commas or any(re.fullmatch(r"[+-]?\d*\.\d+", cell) for cell in cells):
        return "."
    if all(re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell) for cell in commas):
        raise InputError(
            f"{path}: {commas[0]!r} may be a number of thousands or have a decimal comma: read it with "
            "pandas.read_csv(path, decimal=...)."
        )
    return ","


# ---------------------------------------------------------------------- other formats
def _typed(path: Path, columns: dict[str, list[Any]], place: Callable[[int], str]) -> Table:
    """Return a table of Python's values; a column of several kinds becomes texts, which must differ as its values do."""
    pa = import_pyarrow()
    arrays, mixed = {}, {}
    check_names(f"the columns of {path}", list(columns))
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            texts = [None if value is None else str(value) for value in values]
            if len(set(texts)) < len({(type(value), value) for value in values}):
                raise InputError(f"{path}: column {name!r} holds numbers and the same numbers as texts.") from None
            arrays[name], mixed[name] = pa.array(texts, pa.string()), first_of_another_kind(values)
    return Table(pa.table(arrays), str(path), place, mixed=mixed)


def _from_excel(path: Path, content: bytes) -> Table:
    book = needed("openpyxl", "Excel files need openpyxl").load_workbook(
        BytesIO(content), read_only=True, data_only=True
    )
    sheet = book.worksheets[0]
    lines = [(at + 1, list(row)) for at, row in enumerate(sheet.iter_rows(values_only=True))]
    lines = [(at, row) for at, row in lines if any(cell is not None for cell in row)]
    if not lines:
        raise InputError(f"{path}: its first sheet, {sheet.title!r}, is empty.")
    (at, names), rows = lines[0], lines[1:]
    while names and names[-1] is None and all(row[len(names) - 1 :][:1] in ([], [None]) for _, row in rows):
        names.pop()
    if names[0] is None and len(names) > 1:
        names[0] = "Unnamed: 0"  # an index that pandas has written
    if any(not isinstance(name, str) or not name.strip() for name in names):
        raise InputError(
            f"{path}: the first line of its first sheet (row {at}) must name each column: {first_few(names)}."
        )
    columns = {str(name).strip(): [row[i] if i < len(row) else None for _, row in rows] for i, name in enumerate(names)}
    if len(columns) < len(names):
        check_names(f"the columns of {path}", [str(name).strip() for name in names])
    found = _typed(path, columns, lambda position: f"row {rows[position][0]}")
    found.said.append(
        f"sheet {sheet.title!r}" + (f", the first of {len(book.worksheets)}" if len(book.worksheets) > 1 else "")
    )
    return found


def _from_json(path: Path, text: str) -> Table:
    """Return a table of JSON Lines, or of a list of objects."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        check_names(f"the values of a record of {path}", [name for name, _ in pairs])
        return dict(pairs)

    first = 1
    try:
        if text.lstrip().startswith("["):
            records = list(enumerate(json.loads(text, object_pairs_hook=once), 1))
            place: Callable[[int], str] = counted
        else:
            records = []
            for first, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    records.append((first, json.loads(line, object_pairs_hook=once)))
            place = lambda position: f"line {records[position][0]}"  # noqa: E731
    except json.JSONDecodeError as error:
        line_of = f"line {first + error.lineno - 1}, column {error.colno}"
        raise InputError(f"{path} cannot be read as a table: {error.msg} in {line_of}.") from None
    wrong = next((at for at, record in records if not isinstance(record, dict)), None)
    if wrong is not None:
        raise InputError(f"{path}: record {wrong} is no object with a value for each column.")
    names = dict.fromkeys(name for _, record in records for name in record)
    return _typed(path, {name: [record.get(name) for _, record in records] for name in names}, place)


Case = tuple[int, list[list[float]], list[str] | None, str | None]  # line, dimensions, times, class


def _cases(path: Path, cases: Iterable[Case]) -> Table:
    """Return cases, each some dimensions of as many steps, as a long table."""
    columns: dict[str, list[Any]] = {"case": [], "step": []}
    lines, classes = [], []
    for case, (line, dimensions, times, label) in enumerate(cases):
        if len(set(map(len, dimensions))) > 1:
            raise InputError(f"{path}: the dimensions in line {line} have different lengths.")
        steps = len(dimensions[0])
        columns["case"] += [case] * steps
        columns["step"] += range(steps) if times is None else times
        for i, values in enumerate(dimensions):
            columns.setdefault(f"dimension {i + 1}", []).extend(values)
        if len({len(column) for name, column in columns.items()}) > 1:
            raise InputError(
                f"{path}: line {line} has {len(dimensions)} dimensions, and other lines have another number."
            )
        lines += [line] * steps
        classes += [label] * steps
    if classes and classes[0] is not None:
        columns["class"] = classes
    table = _typed(path, columns, lambda position: f"line {lines[position]}")
    table.implied.update({"id": "case", "time": "step", "label": "class"})
    return table


def _values(path: Path, text: str, line: int) -> list[float]:
    try:
        return [float("nan") if cell.strip() in ("?", "NaN") else float(cell) for cell in text.split(",")]
    except ValueError as error:
        raise InputError(f"{path}: line {line}: {error}") from None


def _from_ts(path: Path, text: str) -> Table:
    """Return the cases of a .ts file: dimensions between colons, steps between commas, the class last.

    With ``@timeStamps true`` each step is a pair ``(time,value)``.
    """
    header: dict[str, str] = {}
    cases: list[Case] = []
    in_data = False
    for at, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if not in_data:
            name, _, rest = stripped.lower().partition(" ")
            header[name], in_data = rest.strip(), name == "@data"
            continue
        parts = re.split(r":(?![^()]*\))", stripped)  # a colon in a time separates nothing
        has_label = any(header.get(name, "").startswith("true") for name in ("@classlabel", "@targetlabel"))
        label = parts.pop().strip() if has_label else None
        times = None
        if header.get("@timestamps") == "true":
            pairs = [_stamped(path, part, at) for part in parts]
            times, parts = pairs[0][0], [values for _, values in pairs]
            if any(stamps != times for stamps, _ in pairs):
                raise InputError(f"{path}: the dimensions in line {at} have different times.")
        cases.append((at, [_values(path, part, at) for part in parts], times, label))
    if not in_data:
        raise InputError(f"{path} has no line @data: it is no .ts file.")
    return _cases(path, cases)


def _stamped(path: Path, text: str, line: int) -> tuple[list[str], str]:
    """Return times and values, between commas, of steps that are written as pairs."""
    if re.fullmatch(r"\s*\([^(),]*,[^(),]*\)(\s*,\s*\([^(),]*,[^(),]*\))*\s*", text) is None:
        raise InputError(f"{path}: line {line} must hold steps as (time,value), as @timeStamps says: {text[:30]!r}.")
    pairs = re.findall(r"\(([^(),]*),([^(),]*)\)", text)
    return [time.strip() for time, _ in pairs], ",".join(value for _, value in pairs)


def _from_arff(path: Path, text: str) -> Table:
    """Return an .arff file: columns by @attribute, or cases whose series are a relational attribute."""
    names, inside, relational, lines = [], False, False, iter(enumerate(text.splitlines(), 1))
    for _, line in lines:
        words = next(csv.reader([line.strip()], delimiter=" ", quotechar="'", skipinitialspace=True), [])
        kind = words[0].lower() if words else ""
        if kind == "@data":
            break
        if kind == "@end":
            inside = False
        elif kind == "@attribute" and not inside:
            inside = words[-1].lower() == "relational"
            relational = relational or inside
            names.append(words[1])
    rows = [(at, line) for at, line in lines if line.strip() and not line.startswith("%")]
    if relational:
        cases = []
        for at, line in rows:
            quote = line.strip()[0]
            inner, _, label = line.strip()[1:].rpartition(quote)
            dimensions = [_values(path, one, at) for one in inner.replace("\\n", "\n").split("\n")]
            cases.append((at, dimensions, None, label.strip(" ,'\"") or None))
        return _cases(path, cases)
    records = [(at, next(csv.reader([line], quotechar="'", skipinitialspace=True))) for at, line in rows]
    wrong = next(((at, cells) for at, cells in records if len(cells) != len(names)), None)
    if wrong is not None:
        raise InputError(f"{path}: line {wrong[0]} has {len(wrong[1])} cells for {len(names)} attributes.")
    pa = import_pyarrow()
    columns = {name: pa.array([cells[i].strip() for _, cells in records], pa.string()) for i, name in enumerate(names)}
    return Table(pa.table(columns), str(path), lambda position: f"line {records[position][0]}", ".")

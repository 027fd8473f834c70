"""How the code is built: short functions, short files, no circle of imports. Layers: [tool.importlinter] in pyproject.toml."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

SOURCES = Path(__file__).parents[2] / "src"
HOUSE, ENGINES = SOURCES / "deepshap", ("engines/torch", "engines/tensorflow")
LONGEST_FUNCTION, LONGEST_FILE = 40, 450
NO_CODE = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def long_functions(code: str, most: int = LONGEST_FUNCTION) -> list[tuple[str, int]]:
    """Functions with more lines of code than that, without signature, docstring, comments and empty lines."""
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
        if token.type not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    sizes = [(name, len(lines & body)) for name, body in bodies(ast.parse(code))]
    return [(name, size) for name, size in sizes if size > most]


def bodies(tree: ast.Module) -> Iterator[tuple[str, set[int]]]:
    """The lines of every function's statements."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            statements = node.body[ast.get_docstring(node) is not None :]
            yield node.name, {k for s in statements for k in range(s.lineno, (s.end_lineno or s.lineno) + 1)}


def by_name(code: str, package: str, modules: Iterable[str]) -> set[str]:
    """What a module may import by relative names: any name that begins with a dot, whatever stands in its braces."""
    if "import_module" not in code:
        return set()
    strings = [node for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.Constant, ast.JoinedStr))]
    patterns = [re.escape(package) + name for name in map(pattern, strings) if name.startswith(r"\.")]
    return {module for module in modules if any(re.fullmatch(name, module) for name in patterns)}


def pattern(string: ast.Constant | ast.JoinedStr) -> str:
    """A string as a regular expression."""
    parts = string.values if isinstance(string, ast.JoinedStr) else [string]
    return "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"[^.]+" for part in parts)


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle; nothing if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_function_is_long():
    found = {str(path.relative_to(SOURCES)): long_functions(path.read_text()) for path in SOURCES.rglob("*.py")}
    assert {path: long for path, long in found.items() if long} == {}


def test_no_file_is_long():
    sizes = {str(path.relative_to(SOURCES)): len(path.read_text().splitlines()) for path in SOURCES.rglob("*.py")}
    assert {path: size for path, size in sizes.items() if size > LONGEST_FILE} == {}


@pytest.mark.fast
def test_no_imports_in_a_circle():
    """Imports in functions, for types alone and by name count like all others."""
    graph = grimp.build_graph("deepshap", cache_dir=None)
    imports = {m: graph.find_modules_directly_imported_by(m) - {m} for m in graph.modules}
    for path in SOURCES.rglob("*.py"):
        module = ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        imports[module] |= by_name(path.read_text(), package, graph.modules) - {module}
    assert circle(imports) == []


def listed_in(tables: list[str]) -> set[str]:
    """Modules and folders that the tables of the architecture name in their first column, without endings.

    Of the three tables the second holds for both engines; in the third a file without a folder is in that of the one before.
    """
    own, both, single = ([codes(row.split("|")[1]) for row in rows(table)] for table in tables)
    found = {name for row in own for name in row}
    found |= {f"{engine}/{name}" for engine in ENGINES for row in both for name in row}
    for row in single:
        folder = ""
        for name in row:
            folder = name.rpartition("/")[0].removeprefix("engines").strip("/") if "/" in name else folder
            found.add("/".join(part for part in ("engines", folder, name.rpartition("/")[2]) if part))
    return found


def rows(table: str) -> list[str]:
    """Those below the heading."""
    return table.strip().splitlines()[2:]


def codes(cell: str) -> list[str]:
    """What stands in backticks, as names of modules and folders."""
    return [code.removesuffix(".py").removesuffix("/") for code in re.findall(r"`([^`]+)`", cell)]


def inside(folder: str) -> set[str]:
    """Modules and folders there."""
    found = [path for path in (HOUSE / folder).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return {path.stem for path in found if path.stem[0] != "_"}


def file_tables() -> list[str]:
    """The tables of the architecture's list of files."""
    page = (SOURCES.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = re.split(r"^##+ ", page.partition("\n## The files\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)


def test_the_architecture_names_every_file_and_no_other():
    """Files at the top and in the engines, one by one; other folders as a whole."""
    there = {f"{folder}/{name}".strip("/") for folder in ("", "engines", *ENGINES) for name in inside(folder)}
    assert listed_in(file_tables()) == there - {"engines", *ENGINES}


def test_the_architecture_names_every_file_of_a_folder_or_none():
    """Beside the folder's name, in the second column."""
    listed = 0
    for row in (row for table in file_tables() for row in rows(table)):
        names, described = row.split("|")[1:3]
        if names.strip().endswith("/`") and len(codes(names)) == 1:
            folder = next(f for f in (codes(names)[0], f"engines/{codes(names)[0]}") if (HOUSE / f).is_dir())
            named = {name for name in codes(described) if re.fullmatch("[a-z_]+", name)}
            assert not named & inside(folder) or named == inside(folder), folder
            listed += bool(named & inside(folder))
    assert listed >= 6


def test_files_that_the_code_names_are_there():
    folders = [SOURCES.parent / name for name in ("src", "tests", "tools", "examples", "benchmarks")]
    there = [path.as_posix() for folder in folders for path in folder.rglob("*.py")]
    named = {name for path in SOURCES.rglob("*.py") for name in re.findall(r"[\w/]+\.py\b", path.read_text())}
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in there)] == []


def test_what_counts_as_code():
    signature, docstring = "@cached\ndef f(\n    x,\n):\n", '    """One.\n\n    Two.\n    """\n'
    code = signature + docstring + "    # why\n    y = (\n        x\n    )\n\n    return y\n"
    assert long_functions(code, most=3) == [("f", 4)]
    assert long_functions(code, most=4) == []


@pytest.mark.parametrize(("last", "found"), [("c", []), ("a", ["a", "b"])])
def test_a_circle_is_found(last, found):
    assert sorted(set(circle({"a": {"b"}, "b": {last}}))) == found


def test_imports_by_name_are_found():
    modules = {"p.torch.table", "p.keras.table", "p.keras.other", "p.plain"}
    assert by_name('import_module(f".{engine}.table", __package__)', "p", modules) == {"p.torch.table", "p.keras.table"}
    assert by_name('import_module(NAMES[k])\nNAMES = {"k": ".plain"}', "p", modules) == {"p.plain"}
    assert by_name('x = ".plain"', "p", modules) == set()

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


def test_the_architecture_names_every_file():
    """Files at the top and in the engines, one by one; other folders as a whole."""
    page = (SOURCES.parent / "docs" / "architecture.md").read_text()
    known = {name for code in re.findall(r"`([^`\n]+)`", page) for name in re.findall(r"\w+", code)}
    rooms = "", "mathematics", "engines", "engines/kernels", *ENGINES, "engines/torch/recurrent"
    listed = [path for folder in rooms for path in (HOUSE / folder).iterdir()]
    files = {path.stem for path in listed if (path.suffix == ".py" or path.is_dir()) and path.stem[0] != "_"}
    assert sorted(files - known) == []


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

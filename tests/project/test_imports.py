"""No import cycle, whatever way modules are imported. Layers: [tool.importlinter] in pyproject.toml, run by ``make check``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import deepshap

SOURCES = Path(__file__).parents[2] / "src"


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


def cycle(imports: dict[str, set[str]]) -> list[str]:
    """Return modules that import one another in a cycle; nothing if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.fast
def test_no_import_cycle():
    """Imports in functions, for types alone and by name count like all others."""
    graph = grimp.build_graph("deepshap", cache_dir=None)
    imports = {m: graph.find_modules_directly_imported_by(m) - {m} for m in graph.modules}
    for path in SOURCES.rglob("*.py"):
        module = ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        imports[module] |= by_name(path.read_text(), package, graph.modules) - {module}
    assert cycle(imports) == []


@pytest.mark.parametrize(("last", "found"), [("c", []), ("a", ["a", "b"])])
def test_a_cycle_is_found(last, found):
    assert sorted(set(cycle({"a": {"b"}, "b": {last}}))) == found


def test_imports_by_name_are_found():
    modules = {"p.torch.table", "p.keras.table", "p.keras.other", "p.plain"}
    assert by_name('import_module(f".{engine}.table", __package__)', "p", modules) == {"p.torch.table", "p.keras.table"}
    assert by_name('import_module(NAMES[k])\nNAMES = {"k": ".plain"}', "p", modules) == {"p.plain"}
    assert by_name('x = ".plain"', "p", modules) == set()


@pytest.mark.fast
@pytest.mark.parametrize("name", dir(deepshap))
def test_public_names_are_importable(name):
    """Names of the package are imported when they are first used, from modules that strings name."""
    assert getattr(deepshap, name) is not None

"""The derivation in LaTeX compiles, and each of its formulas names a test that exists."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs" / "tex" / "lstm_shap_generic.tex"
TEXT = re.sub(r"(?<!\\)%.*", "", SOURCE.read_text(encoding="utf-8"))
BODY = TEXT.partition(r"\begin{document}")[2]
NAMED = re.findall(r"\\verifiedby\{(\S+?)::(\S+?)\}", BODY)
ENGINES = ("pdflatex", "xelatex", "lualatex")
NUMBERED = ("equation", "align", "gather", "multline")


def test_formulas_name_tests():
    assert len(NAMED) == BODY.count(r"\verifiedby{") > 20
    assert {Path(file).name for file, _ in NAMED} >= {"test_cells.py", "test_oracle.py", "test_handlers.py"}


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)), ids="::".join)
def test_a_named_test_exists(file, test):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert test.startswith("test_")


def test_every_numbered_formula_is_followed_by_its_test():
    formulas = re.split(rf"\\begin\{{(?:{'|'.join(NUMBERED)})\}}", BODY)[1:]
    assert len(formulas) > 20
    for formula in formulas:
        assert r"\verifiedby{" in formula, formula[:100]


# ---------------------------------------------------------------------- structure
def environments() -> Iterator[tuple[str, str]]:
    """Yield ("begin" or "end", name) in order."""
    yield from re.findall(r"\\(begin|end)\{([^}]*)\}", TEXT)


def test_environments_are_balanced():
    stack: list[str] = []
    for word, name in environments():
        if word == "begin":
            stack.append(name)
        else:
            assert stack, f"\\end{{{name}}} without a beginning"
            assert stack.pop() == name
    assert not stack


@pytest.mark.parametrize("pair", [r"{}", r"\[ \]", r"\left \right", r"\bigl \bigr", r"\Bigl \Bigr"])
def test_brackets_are_balanced(pair):
    left, right = pair.split() if " " in pair else pair
    plain = TEXT if " " in pair else re.sub(r"\\[{}]", "", TEXT)
    plain = plain.replace(r"\\[", r"\\") if left == r"\[" else plain
    word = r"(?![a-zA-Z])" if left[-1].isalpha() else ""
    assert len(re.findall(re.escape(left) + word, plain)) == len(re.findall(re.escape(right) + word, plain))


def test_references_are_defined_once():
    labels = re.findall(r"\\label\{([^}]*)\}", BODY)
    assert len(labels) == len(set(labels))
    assert set(re.findall(r"\\(?:eq)?ref\{([^}]*)\}", BODY)) <= set(labels)
    keys = set(re.findall(r"\\bibitem\{([^}]*)\}", BODY))
    assert set(re.findall(r"\\cite\{([^}]*)\}", BODY)) == keys


def test_only_common_packages_are_used():
    assert set(re.findall(r"\\usepackage(?:\[[^]]*\])?\{([^}]*)\}", TEXT)) <= {"amsmath", "amssymb", "hyperref"}


def test_it_compiles_where_there_is_latex(tmp_path):
    """Without LaTeX, the tests above have to do."""
    engine = next(filter(None, map(shutil.which, ENGINES)), None)
    if engine is None:
        assert TEXT.lstrip().startswith(r"\documentclass")
        assert TEXT.rstrip().endswith(r"\end{document}")
        return
    options = ["-interaction=nonstopmode", "-halt-on-error", f"-output-directory={tmp_path}"]
    for _ in range(2):
        run = subprocess.run([engine, *options, SOURCE.name], cwd=SOURCE.parent, capture_output=True, check=False)
        assert run.returncode == 0, run.stdout.decode(errors="replace")[-2000:]
    log = (tmp_path / f"{SOURCE.stem}.log").read_text(encoding="utf-8", errors="replace")
    assert "undefined" not in log
    assert (tmp_path / f"{SOURCE.stem}.pdf").stat().st_size > 10_000

"""Random runs with random mishaps: what a run that goes on finds is what an undisturbed one finds, or there is an error."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_models import Picky, long_table, ragged_explainer, rows, table_explainer
from tiers import mostly_wide

import deepshap
from deepshap import explain_dataset
from deepshap.dataset import run as runs
from deepshap.dataset.folder import is_intact

Chance = np.random.Generator


# ---------------------------------------------------------------------- random runs
@dataclass
class Drawn:
    """A data set that can be given again, how it is explained, and which rows fail; ``columns`` are of the parts."""

    explainer: Any
    data: Callable[[], Any]
    options: dict[str, Any]
    failing: list[Any]
    ids: list[Any]
    whole: Callable[[], Any] = field(repr=False)  # the rows that do not fail, explained in one call

    def go(self, folder: Path, **options: Any) -> Any:
        return explain_dataset(self.explainer, self.data(), folder, **{**self.options, **options})


def drawn(chance: Chance, path: Path) -> Drawn:
    kind = str(chance.choice(["array", "table", "Parquet", "long"]))
    options: dict[str, Any] = {
        "on_error": "keep",
        "progress": False,
    }
    options["rows_per_part"] = int(chance.integers(1, 9))
    return of_sequences(chance, path, options) if kind == "long" else of_rows(kind, chance, path, options)


def of_rows(kind: str, chance: Chance, path: Path, options: dict[str, Any]) -> Drawn:
    count = int(chance.integers(1, 16))
    x = rows(count, seed=int(chance.integers(1000)))
    bad = np.flatnonzero(chance.random(count) < 0.2)
    x[bad, 0] = chance.choice([13, 17, np.nan], len(bad))
    ids: list[Any] = list(range(count))
    explainer = table_explainer(Picky())
    if kind in ("table", "Parquet"):
        ids = drawn_ids(count, chance)
        table = pd.DataFrame(x, columns=list("abcd"), index=ids)
        if kind == "Parquet":
            table.rename_axis("who").reset_index().to_parquet(
                path / "x.parquet", row_group_size=int(chance.integers(1, 9)), index=False
            )
            options["id"] = "who"
    forms: dict[str, Callable[[], Any]] = {
        "array": lambda: x,
        "table": lambda: table,
        "Parquet": lambda: path / "x.parquet",
    }
    good = np.setdiff1d(np.arange(count), bad)
    return Drawn(explainer, forms[kind], options, [ids[i] for i in bad], ids, lambda: explainer(x[good]))


def drawn_ids(count: int, chance: Chance) -> list[Any]:
    """Numbers in any order, or texts with letters that files and tables stumble over."""
    if chance.random() < 0.5:
        return chance.permutation(10 * count)[:count].tolist()
    letters = [*string.ascii_letters, *"éß漢🦉 ,;'\"\n/"]
    return ["".join(chance.choice(letters, 5)) + str(i) for i in range(count)]


def of_sequences(chance: Chance, path: Path, options: dict[str, Any]) -> Drawn:
    table = long_table(int(chance.integers(1, 12)), seed=int(chance.integers(1000)))
    ids = table["who"].unique()
    bad = ids[1:][chance.random(len(ids) - 1) < 0.2]  # the first row is the longest, and stays
    table.loc[table["who"].isin(bad), "heat"] = np.nan
    table.to_parquet(path / "long.parquet", row_group_size=int(chance.integers(1, 9)))
    explainer = ragged_explainer()
    options |= {"id": "who", "time": "day", "lengths": True}

    def whole() -> Any:
        good = deepshap.sequences(table[~table["who"].isin(bad)], "who", "day")
        return explainer(good.values, additional_forward_args=(good.lengths,))

    return Drawn(explainer, lambda: path / "long.parquet", options, list(bad), list(ids), whole)


def confirm_true(found: Any, drawn: Drawn) -> None:
    """An undisturbed run has the values of one call."""
    assert found.is_complete
    assert [row for row, _ in found.failed()] == drawn.failing
    good = [row for row in drawn.ids if row not in drawn.failing]
    assert len(found) == len(good)
    if good:
        explanation, wanted = found[:], drawn.whole()
        assert list(explanation.row_ids) == good
        np.testing.assert_allclose(explanation.values, wanted.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(explanation.outputs, wanted.outputs, rtol=1e-5, atol=1e-6)


def contents(found: Any) -> tuple[Any, ...]:
    """All that a folder says."""
    lines = [pq.read_table(path).replace_schema_metadata() for path in found.paths]
    return (
        [path.name for path in found.paths],
        lines,
        found.failed(),
        found.errors,
        repr(found).split(":")[1:],
    )


# ---------------------------------------------------------------------- mishaps
def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-0*.parquet"))


def stopped(drawn: Drawn, folder: Path, chance: Chance, error: BaseException) -> None:
    """A run ends before it writes a certain part."""
    left, write = [int(chance.integers(1, 6))], runs.write_part

    def count(*arguments: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise error
        return write(*arguments)

    runs.write_part = count
    try:
        drawn.go(folder)
    except type(error):
        pass
    finally:
        runs.write_part = write


def interrupted(drawn: Drawn, folder: Path, chance: Chance) -> None:
    stopped(drawn, folder, chance, KeyboardInterrupt())


def starved(drawn: Drawn, folder: Path, chance: Chance) -> None:
    stopped(drawn, folder, chance, OSError(28, "No space left on device"))


def particular(drawn: Drawn, folder: Path, chance: Chance) -> None:
    """A run that stops at the first row that fails."""
    if drawn.failing and not parts(folder):
        with pytest.raises(deepshap.DeepShapError, match=rf"row {re.escape(str(drawn.failing[0]))} \(part"):
            drawn.go(folder, on_error="raise")


def damaged_somewhere(path: Path, chance: Chance) -> None:
    content = bytearray(path.read_bytes())
    place = int(chance.integers(len(content)))
    match chance.integers(4):
        case 0:
            content[place] ^= 1 << int(chance.integers(8))
        case 1:
            content[place:] = b""
        case 2:
            content[place:place] = chance.bytes(3)
        case 3:
            content[place] = int(chance.choice([*b"0123456789"]))
    path.write_bytes(content)


def some_part(folder: Path, chance: Chance) -> Path | None:
    found = parts(folder)
    return found[int(chance.integers(len(found)))] if found else None


def part_damaged(drawn: Drawn, folder: Path, chance: Chance) -> None:
    part = some_part(folder, chance)
    if part:
        damaged_somewhere(part, chance)


def part_lost(drawn: Drawn, folder: Path, chance: Chance) -> None:
    part = some_part(folder, chance)
    if part:
        part.unlink()


def part_renumbered(drawn: Drawn, folder: Path, chance: Chance) -> None:
    part = some_part(folder, chance)
    if part:
        number = int(chance.integers(12))
        part.rename(folder / f"part-{number:07d}-{part.name.split('-')[2]}")


def littered(drawn: Drawn, folder: Path, chance: Chance) -> None:
    """What another run was writing, and files of others."""
    folder.mkdir(exist_ok=True)
    for name in (".writing-part-0000001-" + "0" * 32 + ".parquet", "part-1.parquet", "notes.txt", "_manifest.json"):
        (folder / name).write_bytes(chance.bytes(50))


def otherwise(drawn: Drawn, folder: Path, chance: Chance) -> None:
    """A run of something else on the same folder is refused, where it has parts, and changes nothing."""
    before = {path: path.read_bytes() for path in parts(folder)}
    if not any(map(is_intact, before)):
        return
    other = {"effort": {"effort": 7}, "seed": {"seed": 3}}
    with pytest.raises(deepshap.DeepShapError):
        drawn.go(folder, **other[str(chance.choice(list(other)))])
    assert {path: path.read_bytes() for path in parts(folder)} == before


HARMLESS = [interrupted, starved, particular, part_damaged, part_lost, littered, otherwise]
HARMFUL = [part_renumbered]  # which a run may refuse to go on after


@pytest.mark.parametrize("seed", mostly_wide(range(24), range(8)))
def test_random_mishaps_change_nothing(seed, tmp_path):
    chance = np.random.default_rng(seed)
    (tmp_path / "data").mkdir()
    run = drawn(chance, tmp_path / "data")
    undisturbed = run.go(tmp_path / "undisturbed")
    confirm_true(undisturbed, run)
    wanted, folder, harmed = contents(undisturbed), tmp_path / "disturbed", False
    folder.mkdir()
    interrupted(run, folder, chance)
    for mishap in chance.choice([*HARMLESS, *HARMFUL], 4):
        mishap(run, folder, chance)
        harmed = harmed or mishap in HARMFUL
        confirm_read(folder, wanted)
        if chance.random() < 0.5:
            harmed = gone_on(lambda: interrupted(run, folder, chance), folder, harmed) and harmed
    gone_on(lambda: run.go(folder), folder, harmed)
    found = run.go(folder)
    assert found.statistics["resumed_parts"] == len(wanted[0])
    assert contents(found) == contents(deepshap.load(folder)) == wanted
    assert deepshap.status(folder).is_complete


def gone_on(go: Callable[[], Any], folder: Path, harmed: bool) -> bool:
    """Whether a run goes on; where it refuses to, it is begun anew, which is what the errors advise."""
    try:
        go()
        return True
    except deepshap.DeepShapError:
        assert harmed
    begin_anew(folder)
    go()
    return False


def begin_anew(folder: Path) -> None:
    """What errors advise."""
    for path in parts(folder):
        path.unlink(missing_ok=True)


def confirm_read(folder: Path, wanted: tuple[Any, ...]) -> None:
    """What is read of a folder, whatever its state: lines of the undisturbed run, or an error, and complete if it says so."""
    try:
        found = deepshap.load(folder)
        names, lines, *_ = contents(found)
        if found.is_complete:
            assert contents(found) == wanted
        whole = [found[:]] if len(found) else []
    except (
        deepshap.DeepShapError,
        pa.ArrowInvalid,
        OSError,
    ):  # the last two of this test's own reading of what is damaged
        return
    assert set(names) <= set(wanted[0])
    assert all(any(one.equals(other) for other in wanted[1]) for one in lines)
    assert all(np.isfinite(one.values).all() for one in whole)

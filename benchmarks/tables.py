"""The figures as tables and sentences, in the place of what stands between markers in the pages."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from explainers import YARDSTICKS, DeepShap, Floor, Native

Row = dict[str, Any]
SUMMARY = (  # of the README
    Native.name,
    DeepShap.name,
    "shap.DeepExplainer",
    "captum.DeepLiftShap",
    "captum.GradientShap",
    "captum.IntegratedGradients",
)
LEAST = 1e-4  # distances below are taken for that
EXACT = 1e-3  # gaps below are rounding
PATIENCE = 10  # times deepshap's time, in which others are looked for that come closer
LONGEST = 30  # steps of the rows of different lengths


# ---------------------------------------------------------------------- pages
def fill(page: Path, contents: dict[str, str]) -> None:
    """Write each text between its markers, wherever the page has them."""
    text = page.read_text(encoding="utf-8")
    for name, content in contents.items():
        between = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = between.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    page.write_text(text, encoding="utf-8")


def contents(found: dict[str, Row]) -> dict[str, str]:
    """All texts that pages may have, by the names of their markers; of figures by the names of their files."""
    peers, scaling, dial, near = (found[name] for name in ("peers", "scaling", "dial", "accuracy"))
    return {
        "machine": machine(peers["machine"], peers["rounds"]),
        "summary": summary(peers["speed"]),
        "speed": speed(peers["speed"]),
        "home": beside(peers["home"]),
        "small": beside(peers["small"]),
        "first-calls": first_calls(peers["first_calls"]),
        "accuracy": accuracy(near["accuracy"]),
        "gradients": gradient_table(found["gradients"]["rows"]),
        "gradients-keras": keras_table(found["gradients_keras"]["figures"]),
        "scaling": growth(scaling["points"]),
        "large": large(scaling["large"]),
        "budgets": budgets(scaling["budgets"]),
        "threads": threads(scaling["threads"]),
        "losses": losses([*peers["speed"], *peers["home"], *peers["small"]], near["accuracy"]),
        "ground-truth": ground_truth(found["ground_truth"]),
        "dial": of_dial(dial["rows"]),
        "dial-peers": beside_dial(dial["rows"]),
        "dial-losses": dial_losses(dial["rows"]),
        "dial-efforts": dial_efforts(dial["efforts"]),
    }


# ---------------------------------------------------------------------- texts
def machine(made: Row, rounds: int) -> str:
    """Where, when and with what."""
    packages = ", ".join(f"{name} {made[name].split('+')[0]}" for name in ("torch", "shap", "captum", "numba"))
    return (
        f"{made['processor']}, {counted(made['cores'], 'core')}, {made['memory_gib']:.0f} GiB, {made['system']}; "
        f"Python {made['python']}, {packages}; {made['date']}; medians of {rounds}."
    )


def summary(rows: list[Row]) -> str:
    """Ratios and gaps, a line for each problem."""
    lines = [["8 examples × 100 references", *SUMMARY]]
    for problem in names(rows):
        of_peer = {row["peer"]: row for row in rows if row["problem"] == problem}
        lines.append([problem, *(_short(of_peer[peer]) if peer in of_peer else "" for peer in SUMMARY)])
    return table(lines)


def _short(row: Row) -> str:
    if "failure" in row:
        return "fails"
    if row["peer"] == Native.name:
        return f"1 ({seconds(row['seconds'])})"
    text = f"{ratio(row['ratio'])} (gap {small(row['gap'])})"
    return f"**{text}**" if row["peer"] == DeepShap.name else text


def speed(rows: list[Row]) -> str:
    """Everything that was measured about each problem."""
    parts = []
    for problem in names(rows):
        lines = [["", "time", "ratio", "peak memory", "gap"]]
        notes = []
        for row in (row for row in rows if row["problem"] == problem):
            if "failure" in row:
                lines.append([_with_budget(row), "fails", "", "", ""])
                notes.append(f"{row['peer']}: `{row['failure']}`")
                continue
            gap = small(row["gap"]) if "gap" in row else ""
            figures = [seconds(row["seconds"]), ratio(row["ratio"]), memory(row["memory_bytes"]), gap]
            lines.append([_with_budget(row), *figures])
        parts.append("\n\n".join([f"### {problem}", table(lines), *notes]))
    return "\n\n".join(parts)


def beside(rows: list[Row]) -> str:
    """Times, and in brackets those of the others over deepshap's: a line for each problem."""
    lines = [["", *(peers := dict.fromkeys(row["peer"] for row in rows))]]
    for problem in names(rows):
        found = {row["peer"]: row for row in rows if row["problem"] == problem}
        ours = found[DeepShap.name]["seconds"]
        cells = (_times(found.get(peer), ours) for peer in peers)
        lines.append([problem, *cells])
    return table(lines)


def _times(row: Row | None, ours: float) -> str:
    if row is None or "failure" in row:
        return "" if row is None else "fails"
    told = seconds(row["seconds"])
    return f"**{told}**" if row["peer"] == DeepShap.name else f"{told} ({ratio(row['seconds'] / ours)})"


def first_calls(rows: list[Row]) -> str:
    head = ["first call of a process", "with kernels to compile", "with compiled kernels"]
    lines = [[*head, "with imports too", "shap.DeepExplainer, with imports"]]
    forms = ("compiling", "reading", "process", "shap")
    lines += [[row["problem"], *(seconds(row[f"{form}_seconds"]) for form in forms)] for row in rows]
    return table(lines)


def accuracy(rows: list[Row]) -> str:
    """Distances and, in brackets, ratios of time: a line for each method and budget, a column for each problem."""
    problems = names(rows)
    found = {(row["peer"], row["budget"], row["problem"]): row for row in rows if row["peer"] not in YARDSTICKS}
    lines = [["", *problems]]
    for peer, budget in dict.fromkeys((peer, budget) for peer, budget, _ in found):
        cells = [found.get((peer, budget, problem)) for problem in problems]
        lines.append([_with_budget({"peer": peer, "budget": budget}), *(_distance(row) for row in cells)])
    return table(lines)


def _distance(row: Row | None) -> str:
    if row is None:
        return ""
    return "fails" if "failure" in row else f"{row['distance']:.3f} ({ratio(row['ratio'])})"


def budgets(rows: list[Row]) -> str:
    """Time and memory under each budget: a line for each budget, two columns for each problem."""
    problems = names(rows)
    lines = [["max_memory", *(cell for problem in problems for cell in (problem, ""))]]
    for budget in dict.fromkeys(row["budget"] for row in rows):
        of_problem = {row["problem"]: row for row in rows if row["budget"] == budget}
        lines.append([budget, *(cell for problem in problems for cell in _point(of_problem.get(problem)))])
    return table(lines)


def threads(rows: list[Row]) -> str:
    """Time in some threads."""
    counts = list(dict.fromkeys(row["threads"] for row in rows))
    lines = [["", *(counted(count, "thread") for count in counts)]]
    for problem in names(rows):
        of_count = {row["threads"]: row["seconds"] for row in rows if row["problem"] == problem}
        lines.append([problem, *(seconds(of_count[count]) for count in counts)])
    return table(lines)


def growth(rows: list[Row]) -> str:
    """Time and memory along each axis, of both sides."""
    parts = []
    for axis in dict.fromkeys(row["axis"] for row in rows):
        lines = [[axis, DeepShap.name, "", Native.name, ""]]
        points = {(row["peer"], row["size"]): row for row in rows if row["axis"] == axis}
        for size in dict.fromkeys(size for _, size in points):
            pairs = (_point(points.get((peer, size))) for peer in (DeepShap.name, Native.name))
            lines.append([f"{size}", *(cell for pair in pairs for cell in pair)])
        parts.append(table(lines))
    return "\n\n".join(parts)


def gradient_table(rows: list[Row]) -> str:
    """Of every model the time as a multiple of the gradient's: as it is, and within ``explainer.frozen()``."""
    sizes = list(dict.fromkeys((row["examples"], row["references"]) for row in rows))
    lines = [["", *(f"{examples} × {references}" for examples, references in sizes)]]
    found = {(row["problem"], row["examples"], row["references"]): row for row in rows}
    for problem in dict.fromkeys(row["problem"] for row in rows):
        lines.append([problem, *(_ratios(found.get((problem, *size))) for size in sizes)])
    return table(lines)


def keras_table(rows: list[Row]) -> str:
    """Of Keras models: first calls, and the others as multiples of the compiled gradient."""
    lines = [["Model", "operations", "first call", "of another explainer", "gradient", "default", "frozen"]]
    for row in rows:
        times = (seconds(row[form]) for form in ("first", "second", "gradient"))
        ratios = (f"{row[form] / row['gradient']:.2f}" for form in ("default", "frozen"))
        lines.append([row["model"], str(row["operations"]), *times, *ratios])
    return table(lines)


def _ratios(row: Row | None) -> str:
    if row is None:
        return ""
    default, frozen = (f"{row[form] / row['gradient']:.2f}" for form in ("default", "frozen"))
    return f"{default}, {frozen} ({seconds(row['gradient'])})"


def _point(row: Row | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    return ("fails", "") if "failure" in row else (seconds(row["seconds"]), memory(row["memory_bytes"]))


def large(row: Row) -> str:
    """A sentence about the large run."""
    what = f"{row['examples']} examples × {row['references']} references, {row['problem']}, T = {row['steps']}"
    if "failure" in row:
        return f"{what}: fails (`{row['failure']}`)."
    budget = f"with a budget that asks for {row['max_memory']}"
    return f"{what}, {budget}: {seconds(row['seconds'])}, {memory(row['memory_bytes'])} of extra memory."


def losses(speeds: list[Row], accuracies: list[Row]) -> str:
    """Where another method is better, from the figures themselves."""
    found = []
    for problem in names(speeds):
        rows = {row["peer"]: row for row in speeds if row["problem"] == problem and "failure" not in row}
        ours = rows[DeepShap.name]
        faster = sorted((row for row in rows.values() if row["peer"] != Floor.name), key=lambda row: row["ratio"])
        faster = faster[: faster.index(ours)]
        if faster:
            who = ", ".join(f"{row['peer']} ({ratio(row['ratio'])}{_remark(row)})" for row in faster)
            found.append(f"- {problem}: deepshap takes {ratio(ours['ratio'])} times the gradient. Faster: {who}.")
    for problem in names(accuracies):
        rows = [row for row in accuracies if row["problem"] == problem and "distance" in row]
        ours = next(row for row in rows if row["peer"] == DeepShap.name)
        closer: dict[str, Row] = {}
        for row in sorted(rows, key=lambda row: row["ratio"]):
            if row["distance"] < ours["distance"] and row["seconds"] <= PATIENCE * ours["seconds"]:
                closer.setdefault(row["peer"], row)
        if closer:
            who = ", ".join(
                f"{_with_budget(row)} ({row['distance']:.3f}, {ratio(row['seconds'] / ours['seconds'])} times the time)"
                for row in closer.values()
            )
            found.append(f"- {problem}: deepshap is {ours['distance']:.3f} from the exact values. Closer: {who}.")
    return "\n".join(found) or "Nowhere in these figures."


def _remark(row: Row) -> str:
    return f", gap {small(row['gap'])}" if row.get("gap", 0) > EXACT else ""


def ground_truth(made: Row) -> str:
    """A table for each measure: a line for each method, a column for each task, mean and deviation over the seeds."""
    tasks = list(dict.fromkeys(row["task"] for row in made["found"]))
    parts = []
    for measure in ("AUPRC", "AUP", "AUR"):
        cells = {(row["method"], row["task"]): spread(row[measure]) for row in made["found"]}
        methods = dict.fromkeys(method for method, _ in cells)
        parts.append(table([[measure, *tasks], *([name, *(cells[name, task] for task in tasks)] for name in methods)]))
    scores = ", ".join(f"{spread(scores)} ({task})" for task, scores in made["models"].items())
    return "\n\n".join([*parts, f"Areas under the networks' own characteristics, on new rows: {scores}."])


def dataset(made: Row) -> str:
    """What whole data sets cost: a line for each way to run them, and sentences on the rest."""
    lines = [
        ["", "rows/s, all in all", "rows/s once it runs", "until the first part", "memory, early and late", "again"]
    ]
    for name, row in made["runs"].items():
        cells = [name, f"{row['rows_per_second']:.0f}"]
        if "megabytes" in row:
            flat = " and ".join(f"{row[f'{quarter}_quarter_gb']:.2f}" for quarter in ("second", "last"))
            cells += [f"{row['rows_per_second_then']:.0f}", seconds(row["seconds_to_first_part"]), f"{flat} GB"]
            cells.append(seconds(row["seconds_when_complete"]))
        lines.append([*cells, *[""] * (len(lines[0]) - len(cells))])
    one, writing = made["runs"]["one process"], made["writing"]
    share = writing["seconds"] / writing["parts"] / (one["seconds"] * made["rows_per_part"] / made["rows"])
    told = (
        f"{made['machine']['processor']}, {made['machine']['cores']} cores, {made['machine']['date']}; {made['rows']} rows of "
        f"{made['steps']} steps, {made['references']} references, an LSTM of 32 units. *Memory* is that of all processes "
        "together in the second and in the last quarter of the run; *again* is the same call on the complete folder. A part of "
        f"{made['rows_per_part']} rows takes {seconds(writing['seconds'] / writing['parts'])} to write, {share:.1%} of the time; "
        f"all parts together are {one['megabytes']:.0f} MB."
    )
    return "\n\n".join([table(lines), told, _grouping(made["lengths"])])


def _grouping(made: Row) -> str:
    gains = {name: found["padded"] / found["grouped"] for name, found in made.items() if isinstance(found, dict)}
    told = ", ".join(f"of one that {name} {ratio(gain)}" for name, gain in gains.items())
    return (
        f"Rows of 1 to {LONGEST} steps, {made['mean_length']:.1f} on average: where they are grouped by length, the explanation "
        f"of a model takes so many times less processor time: {told}."
    )


# ---------------------------------------------------------------------- words and numbers
def of_dial(rows: list[Row]) -> str:
    """The dial's own line: for each problem the time of Deep SHAP, and at each effort distance and time over that."""
    own = [row for row in rows if row["method"] == "deepshap" and "distance" in row]
    efforts = list(dict.fromkeys(row["budget"] for row in own))
    lines = [["", "Deep SHAP takes", *(f"effort {effort}" for effort in efforts)]]
    for problem, players in dict.fromkeys((row["problem"], row["players"]) for row in own):
        of = {row["budget"]: row for row in own if (row["problem"], row["players"]) == (problem, players)}
        cells = [f"{of[e]['distance']:.3f} ({of[e]['ratio']:.3g})" if e in of else "–" for e in efforts]
        lines.append([f"{problem}, {players} players", seconds(of[1]["seconds"]), *cells])
    return table(lines)


def beside_dial(rows: list[Row]) -> str:
    """How much more time the others take for a distance, over that of the dial: medians over their budgets."""
    found = [row for row in rows if "distance" in row]
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m != "deepshap"]
    lines = [["", *methods]]
    for problem in dict.fromkeys((row["problem"], row["players"]) for row in found):
        here = [row for row in found if (row["problem"], row["players"]) == problem]
        line = _line([row for row in here if row["method"] == "deepshap"])
        cells = []
        for method in methods:
            reached = [(row["seconds"], max(row["distance"], LEAST)) for row in here if row["method"] == method]
            times = [seconds / _time_for(line, distance) for seconds, distance in reached]
            cells.append(ratio(statistics.median(times)) if times else "–")
        lines.append([f"{problem[0]}, {problem[1]} players", *cells])
    return table(lines)


def dial_losses(rows: list[Row]) -> str:
    """Where a method comes nearer than deepshap by more than a tenth in the same time, or none does."""
    found, told = [row for row in rows if "distance" in row], []
    for row in found:
        here = [r for r in found if (r["problem"], r["players"]) == (row["problem"], row["players"])]
        line = _line([r for r in here if r["method"] == "deepshap"])
        own = _distance_at(line, row["seconds"])
        known = row["seconds"] <= line[-1][0]  # by the largest effort
        if known and row["method"] != "deepshap" and 1.1 * row["distance"] + (row["noise"] or 0.0) + LEAST < own:
            told.append(
                f"- {row['problem']}, {row['players']} players: {row['method']} comes to {row['distance']:.3f} in "
                f"{row['ratio']:.3g} times the time of Deep SHAP, deepshap to {own:.3f}."
            )
    return (
        "\n".join(told) or "Nowhere: in the same time deepshap is at most a tenth farther off than each of the others."
    )


def dial_efforts(rows: list[Row]) -> str:
    """How the time taken compares with what was asked, unless everything was tried before."""
    asked = [row for row in rows if 8 <= row["effort"] <= 64]
    shares = sorted(row["ratio"] / row["effort"] for row in asked if row["players"] > 6)  # else all coalitions
    within = sum(0.7 <= share <= 1.4 for share in shares)
    return (
        f"Of {len(shares)} settings {within} took 0.7 to 1.4 times what was asked; the least {shares[0]:.2g} and the most "
        f"{shares[-1]:.2g} times."
    )


def _line(own: list[Row]) -> list[tuple[float, float]]:
    """Times and the least distances up to them, of rising times."""
    points: list[tuple[float, float]] = []
    for row in sorted(own, key=lambda row: row["seconds"]):
        points.append((row["seconds"], max(LEAST, min([row["distance"], *(d for _, d in points)]))))
    return points


def _distance_at(line: list[tuple[float, float]], time: float) -> float:
    """On straight lines between the settings, of logarithms; before and behind them it is that of the first and the last."""
    return math.exp(np.interp(math.log(time), *np.log(line).T))


def _time_for(line: list[tuple[float, float]], distance: float) -> float:
    """On the same lines, and on with the usual square root of time where the last setting is farther away."""
    (last, least), (first, most) = line[-1], line[0]
    if distance < least:
        return last * (least / distance) ** 2
    return (
        first
        if distance >= most
        else math.exp(np.interp(-math.log(distance), *np.log([(1 / d, t) for t, d in line]).T))
    )


def table(lines: list[list[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    head, *body = lines
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def names(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["problem"] for row in rows))


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _with_budget(row: Row) -> str:
    return row["peer"] if row["budget"] is None else f"{row['peer']}, {row['budget']}"


def seconds(value: float) -> str:
    return f"{value * 1000:.2g} ms" if value < 0.0995 else f"{value:.2f} s" if value < 9.995 else f"{value:.0f} s"


def memory(value: int) -> str:
    mib = value / 2**20
    return f"{mib / 1024:.2f} GiB" if mib >= 1000 else f"{mib:.0f} MiB"


def ratio(value: float) -> str:
    return f"{value:.2g}" if value < 9.95 else f"{value:.0f}"


def small(value: float) -> str:
    """A gap: its size, which is what matters."""
    if value == 0 or value >= 9.5:
        return f"{value:.0f}"
    return f"{value:.1g}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")

"""The figures as tables and sentences, in the place of what stands between markers in the pages."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from explainers import YARDSTICKS, DeepShap, Native

Row = dict[str, Any]
SUMMARY = (  # of the README
    Native.name,
    DeepShap.name,
    "shap.DeepExplainer",
    "captum.DeepLiftShap",
    "captum.GradientShap",
    "captum.IntegratedGradients",
)
BY_RULES = "shap.DeepExplainer", "captum.DeepLiftShap"
SHOWN_EFFORTS = 1, 4, 16
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
        "speed": speed([*peers["speed"], *peers["home"]]),
        "first-calls": first_calls(peers["first_calls"]),
        "accuracy": accuracy(near["accuracy"]),
        "gradients": gradient_table(
            found["gradients"]["rows"], {row["problem"] for row in peers["speed"] + peers["home"]}
        ),
        "gradients-keras": keras_table(found["gradients_keras"]["figures"]),
        "gpu": gpu_table(found["gpu"]),
        "forecasters": forecasters(found["forecasters"]),
        "scaling": growth(scaling["points"]),
        "large": large(scaling["large"]),
        "losses": losses([*peers["speed"], *peers["home"], *peers["small"]], near["accuracy"]),
        "ground-truth": ground_truth(found["ground_truth"]),
        "dial": of_dial(dial["rows"]),
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
    """Return ratios to the gradient, with gaps above rounding in brackets: a line for each problem."""
    peers = [Native.name, DeepShap.name, *BY_RULES]
    lines = [["", *peers]]
    for problem in names(rows):
        of_peer = {row["peer"]: row for row in rows if row["problem"] == problem}
        lines.append([problem, *(_ratio_and_gap(of_peer.get(peer)) for peer in peers)])
    return table(lines)


def _ratio_and_gap(row: Row | None) -> str:
    if row is None or "failure" in row:
        return "" if row is None else "fails"
    if row["peer"] == Native.name:
        return seconds(row["seconds"])
    text = ratio(row["ratio"]) + (f" ({small(row['gap'])})" if row.get("gap", 0) > EXACT else "")
    return f"**{text}**" if row["peer"] == DeepShap.name else text


def first_calls(rows: list[Row]) -> str:
    """Return the time of the first call of a process: a line for each problem."""
    lines = [["", "compiling kernels", "loading kernels", "shap.DeepExplainer"]]
    forms = ("compiling", "process", "shap")
    lines += [[row["problem"], *(seconds(row[f"{form}_seconds"]) for form in forms)] for row in rows]
    return table(lines)


def accuracy(rows: list[Row]) -> str:
    """Return distances and, in brackets, ratios of time: a line for each method, at the middle one of its budgets."""
    problems = names(rows)
    by_cell = {(row["peer"], row["budget"], row["problem"]): row for row in rows if row["peer"] not in YARDSTICKS}
    budgets: dict[str, list[Any]] = {}
    for peer, budget in dict.fromkeys((peer, budget) for peer, budget, _ in by_cell):
        budgets.setdefault(peer, []).append(budget)
    lines = [["", *problems]]
    for peer, tried in budgets.items():
        budget = tried[len(tried) // 2]
        cells = [by_cell.get((peer, budget, problem)) for problem in problems]
        lines.append([_with_budget({"peer": peer, "budget": budget}), *(_distance(row) for row in cells)])
    return table(lines)


def _distance(row: Row | None) -> str:
    if row is None:
        return ""
    return "fails" if "failure" in row else f"{row['distance']:.3f} ({ratio(row['ratio'])})"


def growth(rows: list[Row]) -> str:
    """Return time and memory at the largest size of each axis that both sides reached."""
    lines = [["", DeepShap.name, "", Native.name, ""]]
    for axis in dict.fromkeys(row["axis"] for row in rows):
        points = {(row["peer"], row["size"]): row for row in rows if row["axis"] == axis}
        size = max(size for peer, size in points if peer == Native.name)
        pairs = (_point(points.get((peer, size))) for peer in (DeepShap.name, Native.name))
        lines.append([counted(size, axis.removesuffix("s")), *(cell for pair in pairs for cell in pair)])
    return table(lines)


def gradient_table(rows: list[Row], shown: set[str]) -> str:
    """Return ratios to the gradient, by default and within ``frozen()``, of each model not shown elsewhere."""
    size = rows[0]["examples"], rows[0]["references"]
    here = [row for row in rows if (row["examples"], row["references"]) == size and row["problem"] not in shown]
    lines = [[f"{size[0]} × {size[1]}", "default", "frozen"]]
    lines += [
        [row["problem"], *(f"{row[form] / row['gradient']:.2f}" for form in ("default", "frozen"))] for row in here
    ]
    return table(lines)


def keras_table(rows: list[Row]) -> str:
    """Return the first call of each Keras model, and later calls as multiples of the compiled gradient."""
    lines = [["", "first call", "default", "frozen"]]
    for row in rows:
        ratios = (f"{row[form] / row['gradient']:.2f}" for form in ("default", "frozen"))
        lines.append([row["model"], seconds(row["first"]), *ratios])
    return table(lines)


def forecasters(measured: Row) -> str:
    """Return time and distance of each library's own methods and of deepshap: a line for each method of a library."""
    lines = [["model and method", "time, distance", "deepshap", "effort=16"]]
    for model, methods in measured["results"].items():
        cells = {name: f"{seconds(row['seconds'])}, {row['distance']:.4f}" for name, row in methods.items()}
        own = [cells.pop("deepshap"), cells.pop("deepshap, effort=16")]
        lines += [[f"{model}: {name}", cell, *own] for name, cell in cells.items()]
    packages = ", ".join(f"{name} {version.split('+')[0]}" for name, version in measured["packages"].items())
    return f"{table(lines)}\n\n{packages}; {measured['date']}."


def gpu_table(measured: Row) -> str:
    """Return times on a GPU and, in brackets, ratios to cuDNN's gradient: a line for each model, a column for each size."""
    by_cell = {(row["model"], row["examples"], row["references"]): row for row in measured["figures"]}
    models, sizes = dict.fromkeys(key[0] for key in by_cell), dict.fromkeys(key[1:] for key in by_cell)
    lines = [["", *(f"{examples} × {references} pairs" for examples, references in sizes)]]
    for model in models:
        cells = (by_cell[(model, *size)] for size in sizes)
        lines.append([model, *(f"{seconds(row['deepshap'])} ({ratio(row['ratio'])})" for row in cells)])
    return f"{measured['device']}, torch {measured['machine']['torch']}:\n\n{table(lines)}"


def _point(row: Row | None) -> tuple[str, str]:
    if row is None:
        return "", ""
    return ("fails", "") if "failure" in row else (seconds(row["seconds"]), memory(row["memory_bytes"]))


def large(row: Row) -> str:
    """A sentence about the large run."""
    what = f"{row['examples']} examples × {row['references']} references, {row['problem']}, T = {row['steps']}"
    if "failure" in row:
        return f"{what}: fails (`{row['failure']}`)."
    budget = f"budget {row['max_memory']}"
    return f"{what}, {budget}: {seconds(row['seconds'])}, {memory(row['memory_bytes'])} of extra memory."


def losses(speeds: list[Row], accuracies: list[Row]) -> str:
    """Return where another method is faster, or the fastest that is closer to the exact values."""
    slower, closer = [], []
    for problem in names(speeds):
        rows = {row["peer"]: row for row in speeds if row["problem"] == problem and "failure" not in row}
        ours = rows[DeepShap.name]["ratio"]
        faster = [row for row in rows.values() if row["peer"] not in YARDSTICKS and row["ratio"] < ours]
        who = "".join(f"; {row['peer']} {ratio(row['ratio'])}{_remark(row)}" for row in faster)
        slower += [f"- {problem}: {ratio(ours)}{who}"] if faster or ours > 1 else []
    for problem in names(accuracies):
        rows = [row for row in accuracies if row["problem"] == problem and "distance" in row]
        ours = next(row for row in rows if row["peer"] == DeepShap.name)
        better = [row for row in rows if row["distance"] < ours["distance"]]
        best = min(better, key=lambda row: row["seconds"], default=None)
        if best and best["seconds"] <= PATIENCE * ours["seconds"]:
            times = f"{best['distance']:.3f}, {ratio(best['seconds'] / ours['seconds'])}"
            closer.append(f"- {problem}: {ours['distance']:.3f}; {_with_budget(best)}: {times}")
    parts = {
        "Ratios to the gradient, where deepshap is slower than the gradient or another method:": slower,
        "Distances to the Shapley values, where another method is closer in at most ten times the time, and its time as a "
        "multiple of deepshap's:": closer,
    }
    told = [head + "\n\n" + "\n".join(lines) for head, lines in parts.items() if lines]
    return "\n\n".join(told) or "Nowhere in these figures."


def _remark(row: Row) -> str:
    return f" (gap {small(row['gap'])})" if row.get("gap", 0) > EXACT else ""


def ground_truth(made: Row) -> str:
    """Return the mean AUPRC of each method on each task, and the largest deviation over the seeds."""
    tasks = list(dict.fromkeys(row["task"] for row in made["found"]))
    cells = {(row["method"], row["task"]): row["AUPRC"] for row in made["found"]}
    methods = dict.fromkeys(method for method, _ in cells)
    lines = [[name, *(f"{statistics.mean(cells[name, task]):.2f}" for task in tasks)] for name in methods]
    largest = max((statistics.stdev(scores) for scores in cells.values() if len(scores) > 1), default=0.0)
    return table([["AUPRC", *tasks], *lines]) + f"\n\nThe standard deviation over the seeds is at most {largest:.2f}."


def dataset(made: Row) -> str:
    """What whole data sets cost: a line for each way to run them, and sentences on the rest."""
    lines = [
        ["", "rows/s overall", "rows/s after start", "first part after", "memory, early and late", "complete folder"]
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
        f"{made['steps']} steps, {made['references']} references, LSTM with 32 units. Memory: all processes, in the second and "
        f"the last quarter of the run. Complete folder: the same call again. Writing takes {share:.1%} of the time."
    )
    return "\n\n".join([table(lines), told, _grouping(made["lengths"])])


def _grouping(made: Row) -> str:
    gains = {name: found["padded"] / found["grouped"] for name, found in made.items() if isinstance(found, dict)}
    told = ", ".join(f"for a model that {name} {ratio(gain)}" for name, gain in gains.items())
    return f"Speed-up from `lengths=`, for {made['mean_length']:.1f} of {LONGEST} steps on average: {told}."


# ---------------------------------------------------------------------- words and numbers
def of_dial(rows: list[Row]) -> str:
    """Return deepshap's distance and time for some efforts, and how much longer the other methods take."""
    measured = [row for row in rows if "distance" in row]
    others = [method for method in dict.fromkeys(row["method"] for row in rows) if method != "deepshap"]
    efforts = [effort for effort in SHOWN_EFFORTS if any(row["budget"] == effort for row in measured)]
    lines = [["network, players", "Deep SHAP", *(f"effort {effort}" for effort in efforts), *others]]
    for problem, players in dict.fromkeys((row["problem"], row["players"]) for row in measured):
        here = [row for row in measured if (row["problem"], row["players"]) == (problem, players)]
        own = {row["budget"]: row for row in here if row["method"] == "deepshap"}
        times = {e: f" ({own[e]['ratio']:.3g})" if e > 1 else "" for e in own}
        cells = [f"{own[e]['distance']:.3f}{times[e]}" if e in own else "–" for e in efforts]
        curve = _line(list(own.values()))
        for method in others:
            reached = [(row["seconds"], max(row["distance"], LEAST)) for row in here if row["method"] == method]
            ratios = [seconds / _time_for(curve, distance) for seconds, distance in reached]
            cells.append(ratio(statistics.median(ratios)) if ratios else "–")
        lines.append([f"{problem}, {players}", seconds(own[1]["seconds"]), *cells])
    return table(lines)


def dial_losses(rows: list[Row]) -> str:
    """Return where another method is closer than deepshap by more than a tenth in the same time, the worst of each game."""
    measured = [row for row in rows if "distance" in row]
    worst: dict[tuple[str, int], tuple[float, str]] = {}
    for row in measured:
        game = row["problem"], row["players"]
        curve = _line([r for r in measured if (r["problem"], r["players"]) == game and r["method"] == "deepshap"])
        own = _distance_at(curve, row["seconds"])
        known = row["seconds"] <= curve[-1][0]  # by the largest effort
        if known and row["method"] != "deepshap" and 1.1 * row["distance"] + (row["noise"] or 0.0) + LEAST < own:
            factor = own / max(row["distance"], LEAST)
            method = "" if row["method"] == "permutation sampling" else f"{row['method']} "
            text = f"- {game[0]}, {game[1]}: {method}{row['distance']:.3f}, {own:.3f}, {row['ratio']:.3g}"
            worst[game] = max(worst.get(game, (0.0, "")), (factor, text))
    return "\n".join(text for _, text in worst.values()) or "Nowhere."


def dial_efforts(rows: list[Row]) -> str:
    """Return how the time taken compares with the requested time, for problems of more than six players."""
    asked = [row for row in rows if 8 <= row["effort"] <= 64]
    shares = sorted(row["ratio"] / row["effort"] for row in asked if row["players"] > 6)  # else all coalitions
    if not shares:
        return "Every problem was small enough for all coalitions."
    within = sum(0.7 <= share <= 1.4 for share in shares)
    return (
        f"Of {len(shares)} settings, {within} took 0.7 to 1.4 times the requested time. The extremes were {shares[0]:.2g} and "
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

"""Time against accuracy: efforts as a line, beside methods that try coalitions, on fourteen trained networks.

The same players and references for all (``games.py``). Every method runs in this process, in turns; times are those of the
processor, of one thread, and the least of the rounds. ``permutation sampling`` is the yardstick: an order and its reverse for
some references or for all, in plain torch, in batches. Black-box methods share one function of coalitions, which runs the
model on batches. Also measured: whether an effort takes the time that was asked.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from explainers import (
    CaptumKernelShap,
    CaptumShapleyValueSampling,
    ShapKernel,
    ShapPermutation,
    ShapSampling,
)
from games import GAMES, Game, sweep
from problems import Case
from processes import write

import deepshap

RESULTS = Path(__file__).parent / "results" / "dial.json"
EFFORTS = (1, 2, 4, 8, 16, 32, 64, 128)
MOST_SECONDS = 1.0  # a budget that is expected to take longer is left out


# ---------------------------------------------------------------------- methods
def dial(case: Case) -> tuple[Callable[[int, int], np.ndarray], tuple[int, ...]]:
    explainer = deepshap.DeepExplainer(case.model, case.background, progress=False)

    def explain(effort: int, seed: int) -> np.ndarray:
        return explainer.shap_values(case.x, effort=effort, players=np.array(case.groups), seed=seed)

    explain(2, 0)  # compiles what it needs, and measures
    return explain, EFFORTS


def by_permutations(case: Case) -> tuple[Callable[[int, int], np.ndarray], tuple[int, ...]]:
    """Replicates of each row: of a tenth of the references, of a third, of all, and several times of all."""
    count = len(case.background)
    budgets = tuple(sorted({max(2, count // 10), count // 3, count, 3 * count, 9 * count}))
    return (lambda budget, seed: sweep(case, seed, budget)[0][..., None]), budgets


def of_peer(kind: type[Any], budgets: tuple[int, ...]) -> Callable[[Case], Any]:
    def prepared(case: Case) -> Any:
        peer = kind()
        peer.prepare(case)
        return (lambda budget, seed: np.asarray(peer.explain(case.x, budget))), budgets

    return prepared


def of_shapiq(name: str) -> Callable[[Case], Any]:
    """An approximator of shapiq, on the game of each example; the budget is a number of coalitions per player."""

    def prepared(case: Case) -> Any:
        import shapiq

        approximator, groups = getattr(shapiq.approximator, name), torch.as_tensor(np.array(case.groups))

        @torch.no_grad()
        def worth(x: torch.Tensor, coalitions: np.ndarray) -> np.ndarray:
            found = []
            for own in torch.as_tensor(np.atleast_2d(np.asarray(coalitions, bool))).split(64):
                rows = torch.where(own[:, groups][:, None], x, case.background[None])
                found.append(case.model(rows.flatten(0, 1)).double().reshape(len(own), -1).mean(1))
            return torch.cat(found).numpy()

        def explain(budget: int, seed: int) -> np.ndarray:
            values = []
            for x in case.x:
                made = approximator(n=case.players, random_state=seed)
                found = made.approximate(budget * case.players, lambda s, x=x: worth(x, s))
                values.append([found[(player,)] for player in range(case.players)])
            return np.array(values)[..., None]

        return explain, (2, 8, 32)

    return prepared


METHODS: dict[str, Callable[[Case], Any]] = {
    "deepshap": dial,
    "permutation sampling": by_permutations,
    "shap.PermutationExplainer": of_peer(ShapPermutation, (1, 4)),
    "shap.KernelExplainer": of_peer(ShapKernel, (64, 512, 2048)),
    "shap.SamplingExplainer": of_peer(ShapSampling, (4, 16)),
    "captum.ShapleyValueSampling": of_peer(CaptumShapleyValueSampling, (1, 4)),
    "captum.KernelShap": of_peer(CaptumKernelShap, (32, 128)),
    "shapiq.KernelSHAP": of_shapiq("KernelSHAP"),
    "shapiq.PermutationSamplingSV": of_shapiq("PermutationSamplingSV"),
}


# ---------------------------------------------------------------------- measuring
def measure(game: Game, rounds: int, methods: list[str]) -> Iterator[dict[str, Any]]:
    """Time and distance of every method at each budget."""
    case = game.case
    own = {"problem": game.name, "players": case.players, "noise": game.truth[1]}
    plain = dial(case)[0]
    unit = min(timed(plain, 1, 0)[0] for _ in range(5))  # of plain Deep SHAP
    for name in methods:
        try:
            explain, budgets = METHODS[name](case)
            before, paid = None, 0.0
            explain(budgets[0], 0)  # imports and compiles
            for budget in budgets:
                if before is not None and paid * budget / before > MOST_SECONDS and name != "deepshap":
                    break
                times = rounds if name in ("deepshap", "permutation sampling") else 1
                found = [timed(explain, budget, seed) for seed in range(times)]
                before, paid = budget, min(seconds for seconds, _ in found)
                paid = unit if (name, budget) == ("deepshap", 1) else paid
                off = [game.distance(case.by_player(np.asarray(v))[..., 0]) for _, v in found]
                yield {
                    **own,
                    "method": name,
                    "budget": budget,
                    "seconds": paid,
                    "ratio": paid / unit,
                    "distance": float(np.sqrt(np.mean(np.square(off)))),
                }
        except Exception as error:  # a peer that cannot take so many players, say
            yield {**own, "method": name, "failure": f"{type(error).__name__}: {error}"[:200]}


def timed(explain: Callable[[int, int], np.ndarray], budget: int, seed: int) -> tuple[float, np.ndarray]:
    """Seconds and values."""
    start = time.process_time()
    values = explain(budget, seed)
    return time.process_time() - start, values


def said(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    if "failure" in row:
        return f"  {row['method']:29}{row['failure']}"
    return f"  {row['method']:29}{row['budget']:6}{row['seconds']:9.3f} s{row['ratio']:9.1f} x{row['distance']:10.4f}"


def main(arguments: list[str] | None = None) -> None:
    """Measure, print as it goes, and write the figures; those of other games and methods stay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", nargs="*", type=int, default=list(range(len(GAMES))), help="by their numbers")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="by their names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the first game, trained and explained little")
    parser.add_argument(
        "--output", type=Path, help="if not benchmarks/results/dial.json, which a quick run does not write"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    games = [GAMES[number] for number in options.games]
    if options.quick:
        games, options.rounds, options.methods = [games[0].quick()], 1, options.methods[:3]
    warnings.filterwarnings("ignore", "Not all budget is required")  # shapiq says so where players are few
    rows = []
    for game in games:
        print(f"{game.name}, {game.case.players} players", flush=True)
        for row in measure(game, options.rounds, options.methods):
            rows.append(row)
            print(said(row), flush=True)
    kept = json.loads(RESULTS.read_text()).get("rows", []) if RESULTS.exists() and not options.output else []
    anew = {(game.name, method) for game in games for method in options.methods}
    rows += [row for row in kept if (row["problem"], row["method"]) not in anew and row["problem"] in NAMES]
    rows.sort(key=lambda row: (NAMES.index(row["problem"]), list(METHODS).index(row["method"])))
    efforts = [
        {"problem": r["problem"], "players": r["players"], "effort": r["budget"], "ratio": r["ratio"]}
        for r in rows
        if r["method"] == "deepshap"
    ]
    if options.output or not options.quick:
        write(options.output or RESULTS, {"rows": rows, "efforts": efforts})


NAMES = [game.name for game in GAMES]

if __name__ == "__main__":
    main()

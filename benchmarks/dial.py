"""Time against accuracy: the dial as a line, beside methods that try coalitions, for 10 to 320 players.

Networks trained on real weather, the same players and references for all. Every method is asked in this process, in turns;
times are those of the processor, of one thread, and the least of the rounds. The truth is computed from all coalitions where
there are ten players, and by permutation sampling to a stated noise where there are more. Black-box methods share one
function of coalitions, which runs the model on batches. Also measured: whether an effort takes the time that was asked, for 8
examples and 100 references.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from explainers import (
    CaptumKernelShap,
    CaptumShapleyValueSampling,
    ShapExact,
    ShapKernel,
    ShapPermutation,
    ShapSampling,
)
from problems import Attentive, Case, Encoder, LastStep, Problem, distance, shapley_values, weather
from processes import write
from torch import nn

import deepshap

RESULTS = Path(__file__).parent / "results" / "dial.json"
EFFORTS = (1, 2, 4, 8, 16, 32, 64, 256)
MOST_SECONDS = 3.0  # a budget that is expected to take longer is left out
SLOW = 1.0  # seconds beyond which a method is asked once
ON_WEATHER = {"examples": 4, "references": 50, "batches": 200, "draw": weather}
MODELS: dict[str, Callable[[int], nn.Module]] = {
    "LSTM 4→64": lambda steps: LastStep(nn.LSTM, 4, 64),
    "GRU 4→64": lambda steps: LastStep(nn.GRU, 4, 64),
    "LSTM 4→64 with attention": lambda steps: Attentive(4, 64),
    "transformer encoder 4→64": lambda steps: Encoder(4, 64, steps),
}
PLAYERS = {10: 30, 30: 30, 120: 30, 320: 80}  # and how many steps the series have, of 4 features each


def problems(names: list[str], players: list[int]) -> Iterator[Problem]:
    """A problem for each model and number of players."""
    for name in names:
        for count in players:
            steps = PLAYERS[count]
            model = MODELS[name]
            yield Problem(name, lambda model=model, steps=steps: model(steps), 4, steps, players=count, **ON_WEATHER)


# ---------------------------------------------------------------------- truth
def truth(case: Case, evaluations: int) -> tuple[np.ndarray, float]:
    """Shapley values (examples, players, outputs), and their standard error relative to them."""
    if case.players <= 10:
        return shapley_values(case), 0.0
    orders = max(8, evaluations // (2 * len(case.x) * (case.players + 1)))
    explainer = deepshap.DeepExplainer(case.model, case.background, progress=False)
    values = by_permutations(explainer, case, orders)
    return values, noise_of(explainer, case, values, orders)


def by_permutations(explainer: Any, case: Case, orders: int, seed: int = 1) -> np.ndarray:
    """Deep SHAP corrected by so many orders and their reverses, single players entering: unbiased."""
    from deepshap.attribution import AttributionRequest, run
    from deepshap.sampling import Paths, Players

    engine, players = explainer.engine, Players((case.groups,), tuple(map(str, range(case.players))), "groups")
    method = Paths(players, players.count, orders, seed, shrinks=False)
    with engine.session():
        x, background = engine.read(case.x, None, explainer._background)
        every = lambda outputs, profile: np.zeros((len(outputs), 1), int)  # noqa: E731
        found = run(engine, AttributionRequest(x, background, every, method=method, progress=False))
    return found.values[0]


def noise_of(explainer: Any, case: Case, values: np.ndarray, orders: int) -> float:
    """From a second, smaller run with other orders."""
    other = by_permutations(explainer, case, max(2, orders // 4), seed=2)
    return distance(other, values) / np.sqrt(5)  # of a mean over 4 of 5 parts, from its distance to the fifth


# ---------------------------------------------------------------------- methods
def dial(case: Case) -> tuple[Callable[[int, int], np.ndarray], tuple[int, ...]]:
    explainer = deepshap.DeepExplainer(case.model, case.background, progress=False)

    def explain(effort: int, seed: int) -> np.ndarray:
        return explainer.shap_values(case.x, effort=effort, players=np.array(case.groups), seed=seed)

    return explain, EFFORTS if case.players > 10 else (
        *EFFORTS,
        2 ** (case.players - 1),
    )  # the last tries all coalitions


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
    "shap.PermutationExplainer": of_peer(ShapPermutation, (1, 4, 16)),
    "shap.KernelExplainer": of_peer(ShapKernel, (64, 512, 2048)),
    "shap.SamplingExplainer": of_peer(ShapSampling, (4, 16, 64)),
    "shap.ExactExplainer": of_peer(ShapExact, (1,)),
    "captum.ShapleyValueSampling": of_peer(CaptumShapleyValueSampling, (1, 4, 16)),
    "captum.KernelShap": of_peer(CaptumKernelShap, (32, 128)),
    "shapiq.KernelSHAP": of_shapiq("KernelSHAP"),
    "shapiq.PermutationSamplingSV": of_shapiq("PermutationSamplingSV"),
}


# ---------------------------------------------------------------------- measuring
def measure(problem: Problem, evaluations: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Time and distance of every method at each budget."""
    case = problem.make()
    exact, noise = truth(case, evaluations)
    own = {"problem": problem.name, "players": case.players, "noise": noise}
    unit = None
    for name, prepare in METHODS.items():
        try:
            explain, budgets = prepare(case)
            if name == "deepshap":
                explain(budgets[0], 0)  # compiles what it needs; of others the second call is the first that is warm
            before, paid = None, 0.0
            for budget in budgets:
                if before is not None and paid * budget / before > MOST_SECONDS and name != "deepshap":
                    break
                seconds, values = repeated(explain, budget, rounds)
                before, paid = budget, min(seconds)
                unit = unit or paid  # of plain Deep SHAP, which comes first
                off = [distance(case.by_player(np.asarray(v)), exact) for v in values]
                yield {
                    **own,
                    "method": name,
                    "budget": budget,
                    "seconds": paid,
                    "ratio": paid / unit,
                    "distance": float(np.mean(off)),
                }
        except Exception as error:  # a peer that cannot take so many players, say
            yield {**own, "method": name, "failure": f"{type(error).__name__}: {error}"[:200]}


def taken(problem: Problem, rounds: int) -> Iterator[dict[str, Any]]:
    """Time that each effort takes over that of Deep SHAP, in turns."""
    explain, efforts = dial(problem.make())
    seconds: dict[int, list[float]] = {effort: [] for effort in efforts if effort <= 64}
    for seed, effort in itertools.product(range(rounds), seconds):
        seconds[effort].append(timed(explain, effort, seed)[0])
    medians = {effort: float(np.median(found)) for effort, found in seconds.items()}
    for effort, found in medians.items():
        yield {
            "problem": problem.name,
            "players": problem.players,
            "effort": effort,
            "seconds": found,
            "ratio": found / medians[1],
        }


def repeated(
    explain: Callable[[int, int], np.ndarray], budget: int, rounds: int
) -> tuple[list[float], list[np.ndarray]]:
    """Seconds and values of some rounds, of one where that is slow."""
    found = [timed(explain, budget, 0)]
    if found[0][0] <= SLOW:
        found += [timed(explain, budget, seed) for seed in range(1, rounds)]
    return [seconds for seconds, _ in found], [values for _, values in found]


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
    """Measure, print as it goes, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--players", nargs="*", type=int, default=list(PLAYERS))
    parser.add_argument("--evaluations", type=int, default=400_000, help="for the truth where players are many")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one tiny problem")
    parser.add_argument(
        "--output", type=Path, help="if not benchmarks/results/dial.json, which a quick run does not write"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen = list(problems(options.models, options.players))
    if options.quick:
        chosen = [replace(chosen[0], steps=5, players=5, references=4, batches=2, examples=2)]
    warnings.filterwarnings("ignore", "Not all budget is required")  # shapiq says so where players are few
    rows = []
    for problem in chosen:
        print(f"{problem.name}, {problem.players} players", flush=True)
        for row in measure(problem, options.evaluations, 1 if options.quick else options.rounds):
            rows.append(row)
            print(said(row), flush=True)
    of_efforts = [row for problem in chosen for row in taken(_of_standard_size(problem), options.rounds + 1)]
    for row in of_efforts:
        print(
            f"  {row['problem']}, {row['players']} players: effort {row['effort']} took {row['ratio']:.1f}", flush=True
        )
    if options.output or not options.quick:
        write(options.output or RESULTS, {"rows": rows, "efforts": of_efforts})


def _of_standard_size(problem: Problem) -> Problem:
    return problem if problem.examples < 4 else replace(problem, examples=8, references=100)


if __name__ == "__main__":
    main()

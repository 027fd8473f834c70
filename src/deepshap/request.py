"""What is asked of an explainer in one call, and the answer: points read, a method chosen and run, results in shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from . import dial, execution, planning
from .additivity import cleared
from .engines.api import Engine, Points, Profile
from .engines.user_rules import named
from .errors import InputError, of_user
from .found import Found, names_of_inputs
from .methods import DeepShap, Method
from .names import check_count, check_whole
from .outcome import Outcome
from .own_methods import check_method
from .players import Players, players_of
from .tables import plain
from .targets import Ranked, Target, Wish

MOST_EFFORT = 64.0  # for a tolerance, unless the user says otherwise
Shaped = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Request:
    """The options of ``DeepExplainer.shap_values`` but for its rows."""

    additional_forward_args: Any = None
    wish: Wish = field(default_factory=Ranked)
    effort: float = 1
    tolerance: float | None = None
    max_effort: float | None = None
    players: Any = "cells"
    seed: int = 0
    method: Method | None = None

    def __post_init__(self) -> None:
        dial.check_effort(self.effort, self.tolerance, self.max_effort)
        check_whole("seed", self.seed, 0)
        if self.method is not None:
            check_method(self.method)
            if not self.plain:
                raise InputError(
                    "method= says itself who the players are and what is run; leave effort=, tolerance= and players= out."
                )

    @property
    def limit(self) -> float:
        """The most effort for a tolerance."""
        return MOST_EFFORT if self.max_effort is None else self.max_effort

    @property
    def by_cells(self) -> bool:
        """Whether each cell is a player."""
        return isinstance(self.players, str) and self.players == "cells"

    @property
    def plain(self) -> bool:
        """Whether Deep SHAP of each cell is all that is asked."""
        return self.effort == 1 and self.tolerance is None and self.by_cells


class Answer(NamedTuple):
    """What was found, the numbers of the explained outputs (rows, k), all outputs (rows, outputs) and their shape in a row."""

    found: Found
    columns: np.ndarray
    predictions: np.ndarray
    output_shape: tuple[int, ...]
    players: Players | None


class _Part(NamedTuple):
    """Some rows, and what was found of them."""

    rows: np.ndarray
    outcome: Outcome


# ---------------------------------------------------------------------- answering
@dataclass
class Answering:
    """One call of an explainer.

    ``background`` are its references, or None where ``references``, a function, returns those of each row;
    ``feature_names``, of one input or of each, are for players that name features.
    """

    engine: Engine
    request: Request
    settings: planning.Settings
    background: Points | None
    references: Callable[..., Any] | None
    feature_names: Any
    batch_axis: int | Sequence[int] = 0

    def __call__(self, X: Any) -> Answer:
        """Explain X."""
        examples, background = self.engine.read(X, self.request.additional_forward_args, self.background)
        players = self._players(examples)
        if background is None:
            parts = self._against_own(examples, players)
        else:
            parts = self._against(examples, background, players, np.arange(len(examples)))
        return self._shaped(parts, examples, players)

    def _players(self, examples: Points) -> Players | None:
        """None for cells by themselves, as in plain Deep SHAP."""
        own = self.request.method
        if self.request.plain and own is None:
            return None
        if self.engine.layer is not None:
            raise InputError(
                "effort=, tolerance=, players= and method= mix the model's inputs, and here those of an inner layer are "
                "explained: explain the part of the model behind the layer as a model of its own."
            )
        if own is not None:
            return own.players
        keys = list(examples.form.names or range(len(examples.inputs)))
        shapes = [tuple(x.shape[1:]) for x in examples.inputs]
        return players_of(self.request.players, shapes, keys, names_of_each(self.feature_names, examples))

    def _against(self, examples: Points, background: Points, players: Players | None, rows: np.ndarray) -> list[_Part]:
        """Explain rows against one background; with a tolerance again, with more effort, those that have not come near."""
        request, parts, left = self.request, [], np.arange(len(examples))
        effort, limit = (request.effort, request.effort) if request.tolerance is None else (2.0, request.limit)
        while len(left):
            method = self._method_for(effort, players, len(background))
            some = examples if len(left) == len(examples) else examples[left]
            outcome = execution.run(self.engine, method, some, background, request.wish.columns, self.settings)
            near = self._converged(outcome)
            done = np.ones(len(left), bool) if near is None or effort >= limit else near
            if done.any():
                parts.append(_Part(rows[left[done]], outcome.of_rows(np.flatnonzero(done))))
            left, effort = left[~done], min(4 * effort, limit)
        return parts

    def _method_for(self, effort: float, players: Players | None, references: int) -> execution.MethodFor:
        def method(profile: Profile) -> Method:
            if self.request.method is not None:
                return self.request.method
            if players is None:
                return DeepShap()
            return dial.method_for(effort, players, references, self.request.seed, dial.costs_of(profile))

        return method

    def _converged(self, outcome: Outcome) -> np.ndarray | None:
        """Whether each row's standard errors are within the tolerance, if there is one."""
        if self.request.tolerance is None:
            return None
        errors = dial.standard_errors(outcome.method, outcome.estimate)
        assert errors is not None
        return dial.largest_errors(errors, outcome.values[0]) <= self.request.tolerance

    def _against_own(self, examples: Points, players: Players | None) -> list[_Part]:
        """Explain every row against the references that the background, a function, returns for it."""
        assert self.references is not None
        form, parts = examples.form, []
        if form.packed:
            raise InputError("a background that is a function takes tensors and arrays, no PackedSequence; pad it.")
        for row in range(len(examples)):
            what = f"background of row {row}"
            given = [form.concatenated([x[row : row + 1]])[0] for x in examples.inputs]  # copies, to be written to
            with of_user(f"the function {named(self.references)} that returns the background, for row {row},"):
                background = self.references(dict(zip(form.names, given, strict=True)) if form.names else given)
            if isinstance(background, list) and len(background) == 1 and not form.several:
                (background,) = background
            values = plain(background, f"the {what}", self.batch_axis)[0]
            references = self.engine.read_background(values, what, form)
            one = examples[row : row + 1]
            one = replace(one, inputs=form.matched(one.inputs, references.inputs))
            parts += self._against(one, references, players, np.array([row]))
        return parts

    def reliability(self, X: Any, rows: int) -> dial.Reliability:
        """How far Deep SHAP is from the Shapley values on some of the rows."""
        examples, background = self.engine.read(X, self.request.additional_forward_args, self.background)
        check_whole("rows", rows, 1)
        if background is None:
            raise InputError("reliability needs a background of rows; here it is a function.")
        players = self._players(examples)
        assert players is not None
        some = examples[planning.evenly(len(examples), rows)]
        method = dial.probing(players, self.request.seed)
        outcome = execution.run(
            self.engine, lambda _: method, some, background, self.request.wish.columns, self.settings
        )
        costs = dial.costs_of(outcome.profile)
        found = dial.reliability_of(outcome.values[0], method, outcome.estimate, costs)
        return replace(found, references=min(found.references, len(background)))  # none again before all had their turn

    # ------------------------------------------------------------------ results in shape
    def _shaped(self, parts: list[_Part], examples: Points, players: Players | None) -> Answer:
        """Rows in their order, outputs with their axes, results in the dtype and form of the input."""
        order = np.argsort(np.concatenate([part.rows for part in parts]))
        by_row = sorted(range(len(parts)), key=lambda at: parts[at].rows[0])
        first = parts[0].outcome
        profile = first.profile
        shape = profile.output_shape

        def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
            return np.concatenate(arrays)[order] if len(arrays) > 1 else arrays[0]

        def formed(lists: Sequence[Sequence[np.ndarray]], shaped: Shaped) -> Any:
            values = _by_input([joined(each) for each in zip(*lists, strict=True)], players, examples)
            values = [shaped(v, shape).astype(profile.dtype) for v in values]
            return self._placed(values, players, examples)

        def raw(name: str) -> np.ndarray:
            return joined([getattr(part.outcome, name) for part in parts])

        wish = self.request.wish.turned(raw("predictions"))
        errors = [dial.standard_errors(part.outcome.method, part.outcome.estimate) for part in parts]
        groups = [dial.replicates(part.outcome.method, part.outcome.estimate) for part in parts]
        near = [self._converged(part.outcome) for part in parts]
        data: Any = self.engine.explained(examples)
        axes = list(profile.axes)
        if players is not None and not players.are_cells:
            data, axes = players.means(data), [0]
        else:
            data = self._placed(data, players, examples, moved=self.engine.layer is None)
        found = Found(
            formed([part.outcome.values for part in parts], wish.shaped),
            data,
            axes,
            wish.shaped(raw("expected"), shape),
            wish.shaped(raw("outputs"), shape),
            wish.worst(raw("gap"), shape),
            errors=None
            if any(e is None for e in errors)
            else formed([[e] for e in errors if e is not None], wish.bound),
            replicates=[formed([[g] for g in each], wish.shaped) for each in zip(*groups, strict=all(groups))] or None,
            converged=None if near[0] is None else joined([n for n in near if n is not None]),
            method="; ".join(dict.fromkeys(parts[at].outcome.method.description for at in by_row)),
            players=None if players is None else players.kind,
        )
        return Answer(found, raw("columns"), raw("predictions"), shape, players)

    def _placed(self, values: list[np.ndarray], players: Players | None, examples: Points, moved: bool = True) -> Any:
        """One array, or one for each input, with the rows where the user has them."""
        if players is not None and not players.are_cells:
            return values[0]
        if self.engine.layer is None:
            return examples.form.restore(values)
        axes = self.engine.layer_axes
        placed = [np.moveaxis(v, 0, axis) for v, axis in zip(values, axes, strict=True)] if moved else values
        return placed[0] if len(placed) == 1 else placed


def _by_input(values: list[np.ndarray], players: Players | None, examples: Points) -> list[np.ndarray]:
    """Values of players, (rows, players, k), in the shapes of the inputs where they are cells; exactly 0 in packed padding."""
    if players is None:
        return values
    behind = _padding(examples, players)
    return players.by_input(values[0] if behind is None else cleared(values[0], behind, (1,)))


def _padding(examples: Points, players: Players) -> np.ndarray | None:
    """Which players stand behind the ends of packed sequences, where no model reads, (rows, players, 1)."""
    if not examples.form.packed:
        return None
    (x,), lengths = examples.inputs, np.asarray(examples.extra[0].cpu())
    there = np.arange(x.shape[1]) < lengths[:, None]
    cells = np.broadcast_to(there.reshape(*there.shape, *[1] * (len(x.shape) - 1)), (*x.shape, 1))
    return players.summed([cells]) == 0


def names_of_each(feature_names: Any, points: Points) -> list[Any]:
    """Feature names of each input; None where there are none.

    Raises
    ------
    InputError
        If there are not as many names as an input has features.
    """
    form = points.form
    single = form.names is None and not form.several
    keys = list(form.names or range(len(points.inputs)))
    found = [feature_names] if single else names_of_inputs(feature_names, keys)
    for names, x in zip(found, points.inputs, strict=True):
        if names is not None:
            check_count("feature_names", names, x.shape[-1] if len(x.shape) > 1 else 0)
    return found


@contextmanager
def lengths_named(labels: Any, request: Request) -> Iterator[None]:
    """Where a model wants an argument more, name the lengths that a table knows."""
    try:
        yield
    except InputError as error:
        forgotten = isinstance(error.__cause__, TypeError) and request.additional_forward_args is None
        if not forgotten or getattr(labels, "lengths", None) is None:
            raise
        raise InputError(
            f"{error} X knows the lengths of its rows: explainer(X, additional_forward_args=(X.lengths,))."
        ) from error


def names_of(answer: Answer, wish: Wish, output_names: Sequence[str] | None) -> Any:
    """Names of the explained outputs; where each row has outputs of its own, (rows, ranked outputs)."""
    if isinstance(wish, Target):
        return wish.worded(answer.output_shape)
    if wish.count is None:
        return None if callable(wish.change) else output_names
    if output_names is not None and len(answer.output_shape) == 1:
        return np.asarray(output_names)[answer.columns]
    places = np.stack(np.unravel_index(answer.columns, answer.output_shape), -1).tolist()
    return np.array([["Output " + ", ".join(map(str, place)) for place in row] for row in places])

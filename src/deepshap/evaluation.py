"""Evaluation: check a model before it is explained, and measure how faithful explanations are to it.

``check`` runs a model once and lists its operations with the rule of each. ``faithfulness`` asks the model about its
explanation: by taking inputs away, by other references, and by small noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .attribution import run
from .engines.operation_record import OperationSummary
from .engines.registry import engine_for
from .errors import InputError, check_choice, check_number, check_options, check_whole
from .explanation.labels import first_few, plural, verdict_as_html
from .outputs import OutputSelection, check_truth, output_selection, with_output_transform
from .tables import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from .engines.interface import Points
    from .explainer import DeepExplainer

HIGHEST, RANDOM, LOWEST = "highest first", "in random order", "lowest first"
AT_ONCE = 1024  # rows of the model in one call
SAMPLES = 1000  # of the bootstrap


# ---------------------------------------------------------------------- before
@dataclass(repr=False)
class Inspection:
    """What ``check`` found; printed, it is a table, and its representation the verdict.

    Attributes
    ----------
    uses : list of Use
        The operations in the order of their first call, those without a rule first.

    Examples
    --------
    >>> inspection = deepshap.check(model, x)
    >>> inspection.uses[0].treatment
    'recurrent layer: exact recursion'
    """

    uses: list[OperationSummary]

    @property
    def supported(self) -> bool:
        """Whether all operations have a rule."""
        return all(use.supported for use in self.uses)

    def __repr__(self) -> str:
        missing = [f"{use.name} ({use.places[0]})" for use in self.uses if not use.supported]
        if not missing:
            return f"supported: each of {plural(len(self.uses), 'operation')} has a rule; print it for the table"
        verb = "has" if len(missing) == 1 else "have"
        return f"not supported: {len(missing)} of {plural(len(self.uses), 'operation')} {verb} no rule: {first_few(missing)}"

    def _repr_html_(self) -> str:
        return verdict_as_html(repr(self).removesuffix("; print it for the table"), str(self))

    def __str__(self) -> str:
        rows = [("operation", "times", "treatment", "where")]
        for use in self.uses:
            places = list(dict.fromkeys(use.places))
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            rows.append((use.name, str(use.times), use.treatment, places[0] + more))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def check(
    model: Callable[..., Any],
    example: Any,
    *,
    additional_forward_args: Any = None,
    output: Any = None,
    batch_axis: int | Sequence[int] = 0,
) -> Inspection:
    """Find out which operations a model uses, and how each of them would be explained, from one run on any data.

    Parameters
    ----------
    model : torch.nn.Module or callable
        As for ``DeepExplainer``.
    example : tensor, array, table, list or dict of them
        At least one row, in the form that the model takes; random numbers will do.
    additional_forward_args, output, batch_axis
        As for ``DeepExplainer``.

    Returns
    -------
    Inspection
        ``supported``, and ``uses``, one for each operation.

    Raises
    ------
    InputError
        If the example or the model cannot be read. Errors of the model pass as they are, unless an operation without a rule
        came before.

    Examples
    --------
    >>> deepshap.check(model, x).supported
    True
    """
    engine = engine_for(model, example)(model, output=output, batch_axis=batch_axis)
    example, _ = plain(example, "the example", batch_axis)
    with engine.session():
        points, _ = engine.read(example, additional_forward_args)
        summaries = engine.list_operations(points)
    return Inspection(sorted(summaries, key=lambda use: use.supported))


# ---------------------------------------------------------------------- after
@dataclass(frozen=True, repr=False)
class Faithfulness:
    """What the model says about its explanation; shown, it is a few lines.

    Players are what is taken away together: features, steps or cells.

    Attributes
    ----------
    players : "features", "steps", "cells", or "tokens", the ids of words.
    explained : what is explained, in words.
    removed : share of the players that is taken away at each point of the curves, from 0 to 1, (points,).
    deletion : mean output over the references that stand in for what is taken away, (rows, points), by the order in which
        players are taken away: "highest first", "in random order", "lowest first".
    agreement : correlation of what the attributions say that random sets of players contribute with what the output loses
        without them, (rows,); NaN where one of them is always the same.
    gap : |sum of attributions - (output - mean output over the references)|, evaluated anew, (rows,), in the output's unit.
    attributions : of each player, (rows, players), and ``background_errors``, their standard errors over the references.
    sign_changes : with which probability another sample of as many references gives another sign, (rows, players): the share
        of bootstrap samples (Efron 1979). NaN where there is one reference only, from which others cannot be told.
    noise_changes : how far attributions move under the noise, sum of |change| over sum of |attribution|, (rows,), and
        ``output_changes``, how far the output moves, over its distance from the base value. NaN where nothing takes noise: whole
        numbers, and inputs that are the same in all references.

    Examples
    --------
    >>> deepshap.faithfulness(explainer, x).to_dataframe().shape[0] > 0
    True
    """

    players: str
    explained: str
    removed: np.ndarray
    deletion: dict[str, np.ndarray]
    agreement: np.ndarray
    gap: np.ndarray
    attributions: np.ndarray
    background_errors: np.ndarray
    sign_changes: np.ndarray
    noise_changes: np.ndarray
    output_changes: np.ndarray

    @property
    def insertion(self) -> dict[str, np.ndarray]:
        """Mean output when players are put back onto the references, (rows, points), at the shares ``removed``.

        Putting back the highest first takes the lowest away first, seen from the other end.
        """
        opposite = {HIGHEST: LOWEST, RANDOM: RANDOM, LOWEST: HIGHEST}
        return {order: self.deletion[opposite[order]][:, ::-1] for order in opposite}

    @property
    def separation(self) -> np.ndarray:
        """Area between the curves "lowest first" and "highest first" over the random one's range, (rows,); random: about 0."""
        area = np.trapezoid(self.deletion[LOWEST] - self.deletion[HIGHEST], self.removed, axis=1)
        every = np.concatenate(list(self.deletion.values()), axis=1)
        return area / np.maximum(np.ptp(every, axis=1), np.finfo(np.float32).tiny)

    @property
    def doubtful(self) -> np.ndarray:
        """Share of each row's |attribution| whose sign another background would change in one case of twenty, (rows,).

        NaN where ``sign_changes`` is.
        """
        size = np.abs(self.attributions)
        share = np.where(self.sign_changes > 0.05, size, 0).sum(1) / np.maximum(size.sum(1), np.finfo(np.float32).tiny)
        return np.where(np.isnan(self.sign_changes).any(1), np.nan, share)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table with a line for each row.

        Returns
        -------
        pandas.DataFrame
            Columns ``separation``, ``agreement``, ``gap``, ``doubtful``, ``noise_changes`` and ``output_changes``.
        """
        from .errors import needed

        columns = ("separation", "agreement", "gap", "doubtful", "noise_changes", "output_changes")
        return needed("pandas", "tables need pandas").DataFrame({name: getattr(self, name) for name in columns})

    def plot(self, ax: Axes | None = None, unit: str = "") -> Axes:
        """Draw the curves, and how sure the signs are.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.
        unit : str
            Unit of the output, for the label of the axis.

        Returns
        -------
        matplotlib.axes.Axes
        """
        from .plots.overview import faithfulness as draw

        return draw(self, ax=ax, unit=unit)

    @property
    def verdict(self) -> str:
        """In plain words: faithful from a mean agreement of 0.8, or without one a separation of 0.2; partly from half of that."""
        agreement = self.agreement[np.isfinite(self.agreement)]
        share = agreement.mean() / 0.8 if len(agreement) else np.mean(self.separation) / 0.2
        degree = "faithful" if share >= 1 else "partly faithful" if share >= 0.5 else "not faithful"
        return (
            f"{degree}: what attributions say {'agrees' if share >= 0.5 else 'does not agree'} with what the model does"
        )

    def __repr__(self) -> str:
        most = np.argmin(np.abs(self.removed - 0.5))
        start = np.mean(self.deletion[RANDOM][:, 0])
        fall = {order: np.mean(curve[:, most]) - start for order, curve in self.deletion.items()}
        falls = ", ".join(f"{change:+.3g} {order}" for order, change in fall.items())
        rows, doubtful, moved = len(self.gap), np.mean(self.doubtful), np.mean(self.noise_changes)
        return (
            f"{self.verdict}\n"
            f"faithfulness of {plural(rows, 'explanation')} of {self.explained}, by {self.players}\n"
            f"output when {self.removed[most]:.0%} of the {self.players} are taken away: {falls}\n"
            f"separation of the curves: {np.mean(self.separation):.2f} (a random order: 0)\n"
            f"agreement with what the output loses: {mean_known(self.agreement)} (at most 1)\n"
            f"sums: off by {np.max(self.gap):.1e} at most\n"
            + (
                "background: one reference does not tell what others would\n"
                if np.isnan(doubtful)
                else f"background: {doubtful:.0%} of |attribution| might have another sign with other references\n"
            )
            + (
                "noise: there is none to be added"
                if np.isnan(moved)
                else f"noise: attributions move by {moved:.1%}, outputs by {np.mean(self.output_changes):.1%}"
            )
        )

    def _repr_html_(self) -> str:
        return verdict_as_html(*repr(self).split("\n", 1))


def mean_known(values: np.ndarray) -> str:
    """Return the mean of the known values as text; a dash if there are none."""
    finite = values[np.isfinite(values)]
    return f"{finite.mean():.2f}" if len(finite) else "–"


def faithfulness(
    explainer: DeepExplainer,
    X: Any,
    *,
    target: Any = "predicted",
    targets: Any = None,
    players: str = "features",
    additional_forward_args: Any = None,
    references: int = 25,
    points: int = 10,
    noise: float = 0.01,
    seed: int = 0,
) -> Faithfulness:
    """Ask the model whether explanations are true of it.

    Deletion and insertion curves (Samek et al. 2017; Petsiuk et al. 2018): players are exchanged for those of the references,
    and the output is averaged over the references, so that nothing foreign is put in. A good explanation takes the
    output down fast where the highest attributions go first, and up where the lowest do; a random order is between.

    Parameters
    ----------
    explainer : DeepExplainer
        Of the inputs of a model, with a background of rows.
    X : as for the explainer
        Rows to try; some dozens are enough.
    target, targets : as for the explainer
        What to explain, one number of each row; by default the output that is predicted.
    players : "features", "steps" or "cells"
        What is taken away together: a feature at all steps (the last axis of an input), a step with all its features (the
        first axis behind the rows), or each number by itself.
    additional_forward_args : tuple, optional
        As for the explainer.
    references : int, default 25
        If the background has more rows, take this many at random.
    points : int, default 10
        Of the curves, beside the first.
    noise : float, default 0.01
        Standard deviation of the noise, relative to that of the background in each number; whole numbers get none.
    seed : int, default 0
        Of the drawn references, random orders and noise.

    Returns
    -------
    Faithfulness

    Raises
    ------
    InputError
        If an inner layer is explained, the background is a function, or an option does not fit; and what the explainer raises.

    Examples
    --------
    >>> result = deepshap.faithfulness(explainer, x)
    >>> ax = result.plot()
    """
    if not hasattr(explainer, "_background"):
        raise InputError(f"faithfulness takes a deepshap.DeepExplainer, not a {type(explainer).__name__}.")
    check_options(references=references, seed=seed)
    check_whole("points", points, 1)
    check_number("noise", noise, 0)
    check_choice("players", players, ("features", "steps", "cells"))
    selection = output_selection(None, "max", target, targets, explainer.output_names)
    trial = _Trial(explainer, X, additional_forward_args, selection, players, references, seed)
    check_truth(targets, len(trial.columns))
    by_reference = trial.against_each()  # (rows, references, players)
    mean = by_reference.mean(1)
    removed = np.unique(np.round(np.linspace(0, mean.shape[1], points + 1)).astype(int))
    orders = {HIGHEST: -mean, RANDOM: trial.random.random(mean.shape), LOWEST: mean}
    deletion, losses = {}, np.zeros((2, len(mean), 0))
    for name, scores in orders.items():
        ranks = scores.argsort(1, kind="stable").argsort(1)
        curve = np.stack([trial.without(ranks < count) for count in removed], 1)
        deletion[name] = curve
        if name == RANDOM:
            predicted_losses = np.stack([np.where(ranks < count, mean, 0).sum(1) for count in removed], 1)
            losses = np.stack([predicted_losses, curve[:, :1] - curve])
    ends = deletion[HIGHEST][:, 0] - deletion[HIGHEST][:, -1]
    moved, outputs = trial.under_noise(noise)
    return Faithfulness(
        trial.players,
        selection.described(trial.output_shape) or "the output",
        removed / mean.shape[1],
        deletion,
        _correlation(*losses),
        np.abs(mean.sum(1) - ends),
        mean,
        by_reference.std(1, ddof=1) / np.sqrt(by_reference.shape[1])
        if by_reference.shape[1] > 1
        else np.full_like(mean, np.nan),
        _sign_changes(by_reference, trial.random),
        np.abs(moved - mean).sum(1) / np.maximum(np.abs(mean).sum(1), np.finfo(np.float32).tiny),
        np.abs(outputs - deletion[HIGHEST][:, 0]) / np.maximum(np.abs(ends), np.finfo(np.float32).tiny),
    )


class _Trial:
    """Rows, references and players of one call, and the model that is asked about them."""

    def __init__(
        self,
        explainer: DeepExplainer,
        X: Any,
        extra: Any,
        selection: OutputSelection,
        players: str,
        references: int,
        seed: int,
    ) -> None:
        background = explainer._background
        if background is None or explainer.engine.layer is not None:
            raise InputError("faithfulness needs an explainer of a model's inputs, with rows as its background.")
        if explainer._weights is not None:
            raise InputError("faithfulness takes a background whose rows count alike, such as shap.sample(data, 100).")
        if background.form.packed:
            raise InputError("faithfulness takes padded sequences and their lengths, no PackedSequence.")
        self.engine, self.explainer = explainer.engine, explainer
        self.background, self.extra = background, extra
        self.random = np.random.default_rng(seed)
        drawn = np.sort(self.random.permutation(len(background))[:references])
        with self.engine.session():
            self.examples, all_references = self.engine.read(explainer._plain(X)[0], extra, background)
            assert all_references is not None
            if selection.transform is not None:
                outputs = self.engine.native_outputs(self.examples, AT_ONCE)
                self.engine = with_output_transform(
                    self.engine, selection.transform, self.examples, all_references, outputs, AT_ONCE
                )
            self.references = all_references[drawn]
            profile = self.engine.analyze(self.examples, self.references)
            outputs = self.engine.native_outputs(self.examples, AT_ONCE)
        self.columns = selection.columns(outputs, profile)
        weights, signs = selection.weights if selection.terms else np.ones(1), selection.resolved(outputs).signs
        self.weights = np.tile(weights, (len(outputs), 1)) * (1.0 if signs is None else signs[:, None])
        self.output_shape = profile.output_shape
        if self.columns.shape != self.weights.shape:
            raise InputError(f"faithfulness is about one number of each row; this target has {self.columns.shape[1]}.")
        tokens = all(x.ndim == 2 and x.dtype.kind in "iu" for x in self._arrays(self.examples))
        self.players = "tokens" if tokens and players in ("features", "cells") else players
        self.labels = list(_numbered([tuple(x.shape[1:]) for x in self.examples.inputs], players))

    @property
    def count(self) -> int:
        """Number of players."""
        return max(int(label.max()) for label in self.labels) + 1

    def against_each(self, examples: Points | None = None) -> np.ndarray:
        """Return attributions against each single reference, (rows, references, players)."""
        pairs, references = self._pairs(self.examples if examples is None else examples)
        columns = np.repeat(self.columns, len(self.references), 0)
        with self.engine.session():
            request = self.explainer._request(pairs, references, lambda *_: columns, all_pairs=False, progress=False)
            result = run(self.engine, request)
        total = np.zeros((len(pairs), self.count))
        for values, label in zip(result.values, self.labels, strict=True):
            flat = self._one_number(values).reshape(len(pairs), -1)
            total += flat @ (label.reshape(-1, 1) == np.arange(self.count))
        return total.reshape(len(self.columns), len(self.references), self.count)

    def without(self, removed: np.ndarray) -> np.ndarray:
        """Return mean outputs over the references, (rows,), with these players (rows, players) replaced by the references'."""
        examples, references = self._pairs(self.examples)
        remaining = [np.repeat(~removed[:, label], len(self.references), 0) for label in self.labels]
        return self._outputs(examples.mixed(references, remaining)).reshape(len(removed), -1).mean(1)

    def under_noise(self, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Return attributions (rows, players) and outputs (rows,) of the rows with some noise."""
        examples, references = self._arrays(self.examples), self._arrays(self.references)
        spread = [r.std(0) if r.dtype.kind == "f" else np.zeros(()) for r in references]
        if not any(deviation.any() for deviation in spread):
            return np.full((len(self.columns), self.count), np.nan), np.full(len(self.columns), np.nan)
        noisy = [
            x + (scale * deviation * self.random.standard_normal(x.shape)).astype(x.dtype) if x.dtype.kind == "f" else x
            for x, deviation in zip(examples, spread, strict=True)
        ]
        with self.engine.session():
            points, _ = self.engine.read(self.examples.form.restore(noisy), self.extra, self.background)
        return self.against_each(points).mean(1), self._outputs(points)

    def _arrays(self, points: Points) -> list[np.ndarray]:
        """Return the inputs as arrays, rows first."""
        with self.engine.session():
            return self.engine.explained(points)

    def _pairs(self, examples: Points) -> tuple[Points, Points]:
        """Return every example beside every reference, which gets the row arguments of its example."""
        rows, count = len(examples), len(self.references)
        repeated = examples[np.repeat(np.arange(rows), count)]
        return repeated, self.references[np.tile(np.arange(count), rows)].described_by(repeated)

    def _outputs(self, points: Points) -> np.ndarray:
        """Return the explained output of each row, (rows,)."""
        with self.engine.session():
            outputs = self.engine.native_outputs(points, AT_ONCE)
        columns = np.repeat(self.columns, len(outputs) // len(self.columns), 0)
        return self._one_number(np.take_along_axis(outputs, columns, 1))

    def _one_number(self, values: np.ndarray) -> np.ndarray:
        """Return the explained number from the values of its terms, (rows or pairs, ..., terms)."""
        return np.einsum("n...k,nk->n...", values, np.repeat(self.weights, len(values) // len(self.weights), 0))


def _numbered(shapes: Sequence[tuple[int, ...]], players: str) -> Iterator[np.ndarray]:
    """Return for each input the number of the player that each of its cells belongs to."""
    first = 0
    for shape in shapes:
        axes = {"features": shape[-1:], "steps": shape[:1], "cells": shape}[players]
        count = int(np.prod(axes))
        numbers = first + np.arange(count).reshape(axes)
        numbers = numbers.reshape(-1, *[1] * (len(shape) - 1)) if players == "steps" else numbers
        yield np.broadcast_to(numbers, shape)
        first += count


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the correlation of each row of x with that of y, (rows,); NaN where one does not vary."""
    x, y = (a - a.mean(1, keepdims=True) for a in (x, y))
    size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.divide((x * y).sum(1), size, out=np.full(len(x), np.nan), where=size > 0)


def _sign_changes(by_reference: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the share of bootstrap samples of references whose mean changes sign, (rows, players); NaN for one."""
    count = by_reference.shape[1]
    if count == 1:
        return np.full(by_reference[:, 0].shape, np.nan)
    sign, changed = np.sign(by_reference.mean(1)), np.zeros((len(by_reference), by_reference.shape[2]))
    for _ in range(SAMPLES):
        times = random.multinomial(count, np.full(count, 1 / count))
        changed += np.sign(np.einsum("rbp,b->rp", by_reference, times)) != sign
    return changed / SAMPLES

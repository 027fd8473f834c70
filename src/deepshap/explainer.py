"""DeepExplainer: Deep SHAP in the shape of ``shap.DeepExplainer``."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from .attribution import (
    AttributionRequest,
    AttributionResult,
    attribute,
    attribute_combined,
    check_sampling,
    reliability,
)
from .engines._compat import structure_of_outputs
from .engines.callables import packages, reached
from .engines.handlers import TakesHandlers
from .engines.interface import Engine, Points
from .engines.registry import engine_for, parts_of
from .engines.user_rules import named, registered
from .errors import (
    ControlFlowError,
    DeepShapError,
    InputError,
    NoExpectedValueError,
    check_count,
    check_number,
    check_options,
    check_whole,
    listed,
    of_user,
    opened,
    warn_caller,
)
from .explanation.labels import first_few, model_name, plural, verdict_as_html
from .memory import MOST_PAIRS, memory_budget
from .outputs import OutputSelection, check_output_names, check_truth, output_selection, with_output_transform
from .sampling import Method, Players, Reliability
from .sampling.choice import parse_method
from .sampling.estimates import largest_errors
from .sampling.interactions import compute_interactions, make_game, player_names
from .sampling.players import parse_players
from .tables import (
    Labels,
    check_columns_count,
    check_same_order,
    collected,
    columns_of,
    common_ids,
    in_own_order,
    is_frame,
    plain,
)
from .tables.several import check_transforms, names_of_inputs

if TYPE_CHECKING:
    import torch

    from .explanation.interactions import Interactions
    from .results import Explanation

FAR_APART = 10  # standard deviations between the means of X and the background, from which their scales seem to differ
FEWEST_ROWS = 10  # of the background, whose standard deviation says little otherwise
SOME_ROWS = 200  # that these are taken of


WEIGHTED = (
    "This background has weights, as shap.kmeans makes them: give rows of the data, such as shap.sample(data, 100)."
)


class _Nothing:
    """The base of explainers before shap is imported."""


class ShapExplainer(_Nothing):
    """Becomes a subclass of ``shap.Explainer`` once shap is imported, which takes two seconds that values do not need."""

    @staticmethod
    def derive_from_shap() -> None:
        """Make explainers those of shap if shap is imported."""
        if "shap" in sys.modules and ShapExplainer.__bases__ == (_Nothing,):
            ShapExplainer.__bases__ = (sys.modules["shap"].Explainer,)


class DeepExplainer(TakesHandlers, ShapExplainer):
    """Exact Deep SHAP values of a PyTorch or Keras model.

    For every example the attributions sum to the model's output minus its mean over the background, to rounding error:
    DeepLIFT multipliers (Shrikumar et al. 2017) for each pair of example and reference, averaged over the background
    (Lundberg & Lee 2017), with an exact rule for every operation. Formulas: docs/mathematics.md.

    Parameters
    ----------
    model : torch.nn.Module, keras.Model, callable or tuple
        Anything that maps tensors with one row per example to outputs with one row per example; also a loaded SavedModel.
        A tuple ``(model, layer)`` explains the input of that inner layer; symbolic tensors ``(inputs, output)`` of Keras
        are the model between them.
    data : tensor, array, table, list, tuple, dict, PackedSequence or function
        The background: rows that stand for "nothing known". A list or tuple for several inputs, a dict for inputs by
        keyword. 100 rows are usually plenty; the cost is linear in their number. A summary of ``shap.kmeans`` brings weights
        for its rows, which are used. Or a function, as in shap: it gets one
        example, a list of its inputs without the axis of the rows (a dict for inputs by keyword), and returns that example's
        background.
    output : int, key, tuple or callable, optional
        Which tensor to explain when the model returns a tuple or dict: its index, its key, the name of a field (of a named
        tuple) or of a Keras model's output, a tuple of them for nested results, or a function of the result.
    batch_axis : int or sequence of int, default 0
        Where the rows lie in the input (each input); 1 for time-first sequences.
    max_memory : int or str, optional
        Memory for the activations of one chunk of pairs, in bytes or as "500 MB"; by default a quarter of what is free
        and at most 2 GiB.
    max_rows : int, optional
        Rows that the model takes in one call at most, of an exported program with a bounded batch axis.
    progress : bool, optional
        Show a progress bar: always, never, or (default) when a run takes longer than a few seconds.
    feature_names, output_names : sequence of str, optional
        Names for the last axis of the input and of the output; they travel in the explanation. For several inputs a list
        (dict) of feature names for each. By default the columns of the table that is explained.
    inverse_transform : callable, list or dict of them, optional
        Undoes the scaling of the input, (n, features) to (n, features), as a fitted scaler's ``inverse_transform`` does:
        explanations then show the raw inputs, in ``display_data``. For several inputs one, or None, for each.
    combine_mult_and_diffref : callable, optional
        For hypothetical contributions, as in the fork of shap for genomics: a function ``(mult, orig_inp, bg_data)`` of lists
        with an array for each input, multipliers (references, ...), the example (...) and its references (references, ...).
        It returns a list of contributions, arrays of the multipliers' shapes. Their mean over the references takes the place
        of the attributions, and need not sum to the output.

    Raises
    ------
    InputError
        If the background is empty, not finite, or in a form that cannot be read, or names are no list of different ones.

    Examples
    --------
    >>> explainer = deepshap.DeepExplainer(model, background)  # background (references, steps, features)
    >>> explanation = explainer(x)                             # x (rows, steps, features)
    >>> explanation.values.shape                               # (rows, steps, features, outputs)
    (6, 5, 3, 1)
    """

    def __init__(
        self,
        model: Callable[..., Any] | tuple[Callable[..., Any], torch.nn.Module],
        data: Any,
        *,
        output: Any = None,
        batch_axis: int | Sequence[int] = 0,
        max_memory: int | str | None = None,
        max_rows: int | None = None,
        progress: bool | None = None,
        feature_names: Sequence[Any] | Mapping[str, Sequence[str]] | None = None,
        output_names: Sequence[str] | None = None,
        inverse_transform: Any = None,
        combine_mult_and_diffref: Callable[..., Sequence[Any]] | None = None,
    ) -> None:
        check_options(progress=progress)
        self.derive_from_shap()
        check_model(model)
        engine = engine_for(model, data)
        model, layer = parts_of(model)
        if not callable(model) or isinstance(model, type):
            description = f"the class {model.__name__}: make one" if callable(model) else f"a {type(model).__name__}"
            raise InputError(f"the model must be a torch.nn.Module, a Keras model or a callable, not {description}.")
        if data is None:
            raise InputError(
                "the background is None: give the rows that stand for 'nothing known', such as 100 of the data."
            )
        if layer is not None and inverse_transform is not None:
            raise InputError("inverse_transform is for the model's input; the input of an inner layer has no raw form.")
        if combine_mult_and_diffref is not None and not callable(combine_mult_and_diffref):
            raise InputError(f"combine_mult_and_diffref must be a function, not {combine_mult_and_diffref!r}.")
        if layer is not None and combine_mult_and_diffref is not None:
            raise InputError(
                "combine_mult_and_diffref is for the model's inputs; an inner layer is explained without it."
            )
        self._combine = combine_mult_and_diffref
        self._references = data if callable(data) else None  # of each example
        self._batch_axis = batch_axis
        self.engine = engine(model, layer=layer, output=_output_key(model, output), batch_axis=batch_axis)
        labels, self._background = Labels(), None
        data, self._weights = _unweighted(data)
        if not callable(data):
            data, labels = plain(data, "the background", batch_axis, complete=True)
            with self.engine.session():
                self._background = self.engine.read_background(data)
        if max_rows is not None:
            check_whole("max_rows", max_rows, 1)
        self.max_memory = max_memory
        self._most_rows, self._progress = min(max_rows or MOST_PAIRS, MOST_PAIRS), progress
        self.feature_names = listed("feature_names", feature_names)
        if self._background is not None and layer is None:
            names_of_each(self.feature_names, self._background)
        self.output_names = [output_names] if isinstance(output_names, str) else listed("output_names", output_names)
        if output is None:
            check_output_names(self.output_names, self.engine.declared_shape)
        check_transforms(inverse_transform)
        self.inverse_transform = inverse_transform
        self._columns = columns_of(labels)
        self._costs: dict[Any, Any] = {}  # of an effort, measured once
        if self._columns is not None and layer is None:
            check_same_order(self.feature_names, self._columns)

    _scales_compared = False

    def __repr__(self) -> str:
        if self._background is None:
            background = "references of its own for each row"
        else:
            shapes = ", ".join(str(tuple(x.shape[1:])) for x in self._background.inputs)
            background = f"{plural(len(self._background), 'reference')} of shape {shapes}"
        names = "" if self.output_names is None else f"; outputs: {first_few(self.output_names)}"
        return f"DeepExplainer of {model_name(self.engine.model) or 'a function'} against {background}{names}"

    def _repr_html_(self) -> str:
        return verdict_as_html(repr(self))

    @property
    def max_memory(self) -> int:
        """Memory for the activations of one chunk of pairs, in bytes; it may be set, as the option is."""
        return self._memory

    @max_memory.setter
    def max_memory(self, wanted: int | str | None) -> None:
        self._memory = memory_budget(wanted, self.engine.free_memory())

    # ------------------------------------------------------------------ the shap interface
    @property
    def expected_value(self) -> Any:
        """Mean output over the background, of the output's shape without the batch axis.

        Raises
        ------
        NoExpectedValueError
            If the model takes ``additional_forward_args``, or the background is a function: then each explained row has a
            base value of its own, in ``explainer(X, additional_forward_args=...).base_values``.
        """
        if self._references is not None:
            raise NoExpectedValueError(
                "the background is a function, so that each explained row has its own base value: explainer(X).base_values."
            )
        assert self._background is not None
        with self.engine.session():
            try:
                outputs = self.engine.native_outputs(self._background, self._most_rows)
            except InputError as error:
                if not isinstance(error.__cause__, TypeError):
                    raise
                raise NoExpectedValueError(
                    f"the model could not be run on the background alone ({error.__cause__}). If it takes "
                    "additional_forward_args, each explained row has its own base value: explainer(X, "
                    "additional_forward_args=...).base_values."
                ) from error
            return self.engine.as_output(np.average(outputs, 0, self._weights))

    def shap_values(
        self,
        X: Any,
        ranked_outputs: int | None = None,
        output_rank_order: str = "max",
        check_additivity: bool = True,
        *,
        target: Any = None,
        targets: Any = None,
        additional_forward_args: Any = None,
        effort: float = 1,
        tolerance: float | None = None,
        max_effort: float | None = None,
        players: Any = "cells",
        seed: int = 0,
        method: Method | str | None = None,
    ) -> Any:
        """Attribute the model's outputs on ``X`` to its inputs.

        Parameters
        ----------
        X : tensor, array, table, list, tuple, dict or PackedSequence
            Rows to explain, in the form of the background. Tables are pandas.DataFrame (rows, features), xarray.DataArray
            (row, step, feature) and what ``deepshap.sequences`` makes of a long table.
        ranked_outputs : int, optional
            Explain only that many outputs of each row, the top ones by ``output_rank_order``.
        output_rank_order : "max", "min" or "max_abs"
            How outputs are ranked.
        check_additivity : bool, default True
            Raise if the attributions do not sum to the difference of outputs. If False, warn instead.
        target : str, int, tuple or callable, optional
            Explain one number of each row: "predicted", "true", "runner-up", an output's name or index, or the difference of
            two, "predicted - runner-up"; "log-odds", of the predicted class against all others, or "log-odds of" another;
            "logits", what the model's last softmax or sigmoid gets; or a function of the output. docs/guide/outputs.md.
        targets : array, optional
            True class of each row, by index or name, for ``target="true"``.
        additional_forward_args : tuple, optional
            Further arguments of the model that describe rows and carry no signal (lengths, masks). Tensors and arrays have
            one entry per row; each row's references are evaluated with that row's own. Other values are passed as they are.
        effort : float, default 1
            How much more time to take than Deep SHAP, for values nearer to the Shapley values; 1 is Deep SHAP itself. The
            first call measures on the model what the parts of an effort take. Below 8 the least that can be bought may take
            more than was asked.
        tolerance : float, optional
            Instead of ``effort``: work until the standard errors of each row are below that share of its largest value,
            or ``max_effort`` is reached.
        max_effort : float, optional
            The most effort for a tolerance, by default 64.
        players : str, int, array or mapping, default "cells"
            What the values belong to: "cells" of the input, "steps", "features", a number for windows of that many steps, an
            integer array of one row's shape with the number of each cell's player (for several inputs a list or dict of
            them), or a mapping from names to features (for several inputs to mappings from inputs to features).
        seed : int, default 0
            Of the orders and references that an effort above 1 draws, together with the content of each row: a row's values do
            not depend on the other rows.
        method : str or deepshap.sampling.Method, optional
            Instead of ``effort``. ``explanation.method`` of another call, with the same ``players``, repeats what was done
            there. Or an object that says, also instead of ``players``, which pairs of points are compared, and with which
            weights: there is one in twenty lines in docs/architecture.md.

        Returns
        -------
        numpy.ndarray, list, dict or tuple
            Outcome of the input's shape with the output's axes behind it: ``(rows, steps, features, outputs)``
            for a sequence and several outputs. A list (dict) for several inputs. With ``ranked_outputs`` a pair
            ``(values, indexes)``, the indexes of shape (rows, ranked_outputs). With other players than cells (rows, players,
            outputs).

        Raises
        ------
        InputError, UnsupportedOperationError, ControlFlowError, BatchMixingError, NonFiniteError, AdditivityError,
        MemoryBudgetError
            See ``deepshap.errors``; nothing is returned then, and the model is as it was.
        """
        selection = output_selection(ranked_outputs, output_rank_order, target, targets, self.output_names)
        check_sampling(effort, tolerance, max_effort, players, seed, method)
        sampling = {"effort": effort, "tolerance": tolerance, "max_effort": max_effort, "seed": seed, "method": method}
        request, result, labels = self._attribute(
            X, selection, check_additivity, additional_forward_args, players, **sampling
        )
        check_truth(targets, len(result.columns))
        values = self._restored(request, result.values)
        if self.engine.layer is None and (request.players is None or request.players.are_cells):
            values = in_own_order(values, labels)
        return values if ranked_outputs is None else (values, result.columns)

    def __call__(
        self,
        X: Any,
        *,
        ranked_outputs: int | None = None,
        output_rank_order: str = "max",
        check_additivity: bool = True,
        target: Any = None,
        targets: Any = None,
        additional_forward_args: Any = None,
        effort: float = 1,
        tolerance: float | None = None,
        max_effort: float | None = None,
        players: Any = "cells",
        seed: int = 0,
        method: Method | str | None = None,
    ) -> Explanation:
        """Explain ``X``; as ``shap_values``, with base values, data and names in one object.

        Row ids, names and times of a table come along; ``output_names`` has shape (rows, ranked_outputs) where each row has
        outputs of its own. ``targets``, the true classes or values, go along with the explanation.

        Returns
        -------
        Explanation
            A ``shap.Explanation``: ``values`` as from ``shap_values`` and ``data``, the rows first in both;
            ``base_values`` (rows, outputs) the mean output over the background as each row sees it. For several inputs
            a ``JointExplanation``, ``explanation[0]`` or ``explanation["name"]`` that of one of them.

        Raises
        ------
        InputError
            If there are not as many different names as features or outputs; and whatever ``shap_values`` raises.
        """
        from .results.assembly import assemble, describe  # which imports shap

        self.derive_from_shap()
        start = time.perf_counter()
        selection = output_selection(ranked_outputs, output_rank_order, target, targets, self.output_names)
        check_sampling(effort, tolerance, max_effort, players, seed, method)
        sampling = {"effort": effort, "tolerance": tolerance, "max_effort": max_effort, "seed": seed, "method": method}
        request, result, labels = self._attribute(
            X, selection, check_additivity, additional_forward_args, players, **sampling
        )
        shape, by_cells = result.profile.output_shape, request.players is None or request.players.are_cells
        if by_cells:
            data = self._explained_data(request.examples)
            keys, features = self._keys(request.examples), self._features(labels)
        else:
            assert request.players is not None
            data = [request.players.means(self.engine.explained(request.examples))]
            keys, features = None, request.players.names
        explanation = assemble(
            result.values,
            result.expected,
            data,
            result.outputs,
            result.gap,
            keys=keys,
            feature_names=features,
            output_names=selection.explained_names(result.columns, shape),
            errors=result.errors,
            replicates=result.replicates,
            compute_time=time.perf_counter() - start,
        )
        explanation.method, explanation.converged = result.description, result.converged
        explanation.players = None if request.players is None else request.players.kind
        explanation.background = {"description": "references of its own for each row"}
        if self._background is not None:
            explanation.background = {"rows": len(self._background)}
        explanation.model, explanation.explained = model_name(self.engine.model), selection.described(shape)
        if len(shape) < 2:
            explanation.predictions, explanation.classes = result.predictions, self.output_names
        if self._combine is not None:  # its values are no shares of the output
            explanation._each(lambda part: part._forget("gap"))
        if targets is not None:
            explanation.targets = targets
        if self.engine.layer is None and by_cells:
            describe(explanation, labels, self.inverse_transform)
        else:
            explanation.row_ids = common_ids(labels)
        return explanation

    def reliability(
        self, X: Any, *, rows: int = 4, additional_forward_args: Any = None, players: Any = "cells", seed: int = 0
    ) -> Reliability:
        """Estimate how far plain Deep SHAP is from the Shapley values, for this model and data.

        A few rows are explained by Deep SHAP and by the method that an effort of 16 buys. Where all coalitions are cheap,
        these are tried, and the distance of the rows is exact.

        Parameters
        ----------
        X : tensor, array, table, list, tuple, dict or PackedSequence
            Rows to explain, as for ``shap_values``; ``rows`` of them, evenly spread, are looked at.
        rows : int, default 4
            How many; all of them, where there are fewer.
        additional_forward_args, players, seed
            As for ``shap_values``.

        Returns
        -------
        Reliability
            ``distance`` and its ``error``, relative to the Shapley values; ``verdict`` in words; ``effort`` that comes near;
            ``rows``, and different ``references`` of each, that were looked at.
        """
        check_whole("seed", seed, 0)
        check_whole("rows", rows, 1)
        if self._background is None:
            raise InputError("reliability needs a background of rows; here it is a function.")
        if self._weights is not None:
            raise InputError(f"reliability takes a background whose rows count alike. {WEIGHTED}")
        X, labels = self._plain(X)
        with self.engine.session():
            examples, references = self.engine.read(X, additional_forward_args, self._background)
            assert references is not None
            partition = self._players(players, examples, labels)
            request = self._request(examples, references, OutputSelection().columns, players=partition, seed=seed)
            return reliability(self.engine, request, rows)

    def game(
        self,
        X: Any,
        *,
        players: Any = "features",
        target: Any = None,
        targets: Any = None,
        additional_forward_args: Any = None,
    ) -> Any:
        """Return the game of one row: the model's mean output over the background for each coalition of players.

        The players of a coalition have their values of the row, all others those of the references. The game has the
        interface of shapiq, whose approximators of Shapley values and interactions work on it. It evaluates many
        coalitions at a time.

        Parameters
        ----------
        X : tensor, array, table, list, tuple, dict or PackedSequence
            A single row: ``x[:1]``, in the form of the background, or ``x[0]``, the row of a single input by itself.
        players, target, targets, additional_forward_args
            As for ``shap_values``.

        Returns
        -------
        shapiq.Game
            With ``base_value``, the mean output over the background; values are relative to it.

        Raises
        ------
        ImportError
            If shapiq is not installed: ``pip install 'deepshap[interactions]'``.
        InputError
            If there are several rows, or several outputs and no target.

        Examples
        --------
        >>> import shapiq
        >>> game = explainer.game(x[0], players="steps")
        >>> estimate = shapiq.KernelSHAP(n=game.n_players, random_state=0).approximate(budget=20, game=game)
        """
        row = None if self._background is None else tuple(self._background.inputs[0].shape[1:])
        if isinstance(self._batch_axis, int) and row is not None and row == getattr(X, "shape", None):
            X = X.to_numpy() if hasattr(X, "to_numpy") else X  # a row of a table
            X = X[(*[slice(None)] * self._batch_axis, None)]
        games, _, _ = self._games(X, players, target, targets, additional_forward_args)
        if len(games) != 1:
            raise InputError(f"a game is of one row, and X has {len(games)}: explainer.game(X[:1]).")
        return games[0]

    def interactions(
        self,
        X: Any,
        *,
        players: Any = "features",
        order: int = 2,
        effort: float = 128,
        target: Any = None,
        targets: Any = None,
        additional_forward_args: Any = None,
        seed: int = 0,
    ) -> Interactions:
        """Return what pairs of players add together, beyond what each adds alone: Shapley interaction values.

        All coalitions are evaluated where the effort allows, and the values are exact. Otherwise shapiq's KernelSHAPIQ
        estimates them (Fumagalli et al. 2024), and standard errors come along; a warning says if these are large.

        Parameters
        ----------
        X : tensor, array, table, list, tuple, dict or PackedSequence
            Rows to explain, in the form of the background.
        players, target, targets, additional_forward_args
            As for ``shap_values``. The number of pairs grows with the square of the players, so ``"features"``, windows or
            groups are better than cells.
        order : int, default 2
            2, for pairs. Higher orders: shapiq's approximators on ``explainer.game(row)``.
        effort : float, default 128
            How much time to take for each row, as a multiple of that of Deep SHAP: three coalitions on all references
            count as 1.
        seed : int, default 0
            Of the coalitions that are drawn where not all are evaluated.

        Returns
        -------
        Interactions
            ``values`` (rows, players, players), ``errors``, ``names``, ``to_dataframe()``; drawn by
            ``deepshap.plots.interactions``.

        Raises
        ------
        ImportError
            If shapiq is not installed: ``pip install 'deepshap[interactions]'``.
        InputError
            If there are several outputs and no target, or the effort is too small for the number of pairs.

        Examples
        --------
        >>> result = explainer.interactions(x, players="features")
        >>> strongest = result.to_dataframe().nlargest(3, "value")
        """
        check_whole("seed", seed, 0)
        check_number("effort", effort, 1)
        if order != 2:
            raise InputError(
                f"order={order!r}: interactions are of pairs, order=2; for others use shapiq on explainer.game(row)."
            )
        games, outputs, names = self._games(X, players, target, targets, additional_forward_args)
        return compute_interactions(games, outputs, names, effort, seed)

    def _games(
        self, X: Any, players: Any, target: Any, targets: Any, additional_forward_args: Any
    ) -> tuple[list[Any], np.ndarray, list[str]]:
        """Return the game of each row, the explained outputs of the rows, and the names of the players."""
        if self._background is None:
            raise InputError("games and interactions need a background of rows; here it is a function.")
        selection = output_selection(None, "max", target, targets, self.output_names)
        X, labels = self._plain(X)
        with self.engine.session(), _hints(self.engine.model, labels, additional_forward_args):
            engine = self.engine
            examples, references = engine.read(X, additional_forward_args, self._background)
            assert references is not None
            partition = self._players(players, examples, labels)
            predictions = engine.native_outputs(examples, self._most_rows)
            if selection.transform is not None:
                check_output_names(self.output_names, engine.output_shape)
                engine = with_output_transform(
                    engine, selection.transform, examples, references, predictions, self._most_rows
                )
            profile = engine.analyze(examples, references)
            predictions = engine.outputs(examples, self._most_rows)
            columns = selection.columns(predictions, profile)
            selection = selection.resolved(predictions)
        if not selection.terms and columns.shape[1] != 1:
            raise InputError(f"the model has {columns.shape[1]} outputs, and a game has one: choose it with target=.")

        def choose_for(row: int) -> Callable[[np.ndarray], np.ndarray]:
            sign = 1.0 if selection.signs is None else selection.signs[row]
            return lambda outputs: (
                outputs[:, columns[row]] @ (selection.weights if selection.terms else np.ones(1)) * sign
            )

        chosen = [choose_for(row) for row in range(len(examples))]
        games = [
            make_game(
                engine,
                examples[row : row + 1],
                references,
                choose,
                partition,
                most_rows=self._most_rows,
                weights=self._weights,
            )
            for row, choose in enumerate(chosen)
        ]
        outputs = np.array([choose(predictions[row : row + 1])[0] for row, choose in enumerate(chosen)])
        return games, outputs, player_names(partition)

    def frozen(self) -> AbstractContextManager[None]:
        """Skip the check for changes of the model within a block: ``with explainer.frozen(): ...``.

        Outside of such a block, every call checks whether the model has changed since the last one. A PyTorch model runs on all
        references, and the checksums of its weights are compared; a Keras model is compared or traced again. Within the block
        this thread's calls use the recorded references and graphs as they are. If the model changes nevertheless, explanations
        are of the model as it was or as it is, or a call raises an error.

        Returns
        -------
        context manager
            For a ``with`` statement.
        """
        return self.engine.frozen()

    def against(self, data: Any) -> DeepExplainer:
        """Make an explainer of the same model, with the same options and handlers, and another background.

        Parameters
        ----------
        data : tensor, array, table, list, tuple, dict, PackedSequence or function
            The background, as for the class.

        Returns
        -------
        DeepExplainer

        Raises
        ------
        InputError
            If the background is empty, not finite, or in a form that cannot be read.
        """
        engine = self.engine
        explainer = DeepExplainer(
            engine.model if engine.layer is None else (engine.model, engine.layer),
            data,
            output=engine.output,
            batch_axis=self._batch_axis,
            max_memory=self.max_memory,
            max_rows=self._most_rows,
            progress=self._progress,
            feature_names=self.feature_names,
            output_names=self.output_names,
            inverse_transform=self.inverse_transform,
            combine_mult_and_diffref=self._combine,
        )
        for layer, handler in self.custom_handlers.items():
            explainer.register_custom_handler(layer, handler)
        return explainer

    @property
    def depends_on(self) -> dict[str, Any]:
        """What explanations depend on beside the rows: the model, what is explained of it, background, rules, names."""
        engine = self.engine
        return {
            "model": engine.model,
            "layer": engine.layer,
            "output": engine.output,
            "background": self._references if self._background is None else list(self._background.inputs),
            "weights": self._weights,
            "combine": self._combine,
            "batch_axis": self._batch_axis,
            "handlers": dict(self.custom_handlers),
            "rules": registered().get(engine.framework, {}),
            "names": [self.feature_names, self.output_names, self._columns, self.inverse_transform],
        }

    def save(self, out_file: Any) -> None:
        """Write the explainer, with its model and background, as a pickle.

        Parameters
        ----------
        out_file : path or binary file
            The file to write, or one that is open for writing.

        Raises
        ------
        InputError
            If it is neither.
        """
        with opened(out_file, "wb") as stream:
            cloudpickle.dump(self, stream)

    @classmethod
    def load(cls, in_file: Any) -> DeepExplainer:
        """Read what ``save`` wrote. Like every pickle it can run code: load only what you trust.

        Parameters
        ----------
        in_file : path or binary file
            The file to read, or one that is open for reading.

        Returns
        -------
        DeepExplainer

        Raises
        ------
        InputError
            If it is neither a path nor a binary file that is open, or holds no explainer.
        """
        with opened(in_file, "rb") as stream:
            try:
                explainer = cloudpickle.load(stream)
            except (pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
                raise InputError(
                    f"{in_file} holds no explainer that DeepExplainer.save wrote whole: {error}"
                ) from error
        if not isinstance(explainer, DeepExplainer):
            raise InputError(
                f"{in_file} holds a {type(explainer).__name__}, no explainer that DeepExplainer.save wrote."
            )
        return explainer

    # ------------------------------------------------------------------ steps of an explanation
    def _plain(self, X: Any) -> tuple[Any, Any]:
        """Return arrays and their labels, with columns in the model's order."""
        X = collected(X)
        is_series = hasattr(X, "to_frame") and hasattr(X, "index") and not hasattr(X, "columns")
        if is_series and self._background is not None and len(self._background.inputs[0].shape) > 1:
            raise InputError("X is a Series, a single row: give a DataFrame of one row, as frame.iloc[[0]] is.")
        row = () if self._background is None else tuple(self._background.inputs[0].shape[1:])
        if is_frame(X) and tuple(X.shape) == row and self._batch_axis == 0:
            raise InputError(
                f"X is a table with the shape of one row, {row}, no axis of rows: give X.to_numpy()[None]."
            )
        values, labels = plain(X, "X", self._batch_axis, self.model_features, complete=True)
        check_columns_count(X, labels, "X", row)
        return values, labels

    @property
    def model_features(self) -> Any:
        """The features in the model's order, of one input or of each; None where neither background nor user names them."""
        if self._columns is not None or self.engine.layer is not None:
            return self._columns
        return self.feature_names

    def _features(self, labels: Any) -> Any:
        """Return names for the last axis of the input: those that the user gave, or the table's columns."""
        is_named = self.feature_names is not None or self.engine.layer is not None
        return self.feature_names if is_named else columns_of(labels)

    def _players(self, players: Any, examples: Points, labels: Any, method: Method | str | None = None) -> Players:
        """Return who the values belong to."""
        if self.engine.layer is not None:
            raise InputError(
                "effort=, tolerance=, players= and method= mix the model's inputs, and here those of an inner layer are "
                "explained: explain the part of the model behind the layer as a model of its own."
            )
        keys = list(examples.form.names or range(len(examples.inputs)))
        shapes = [tuple(x.shape[1:]) for x in examples.inputs]
        return parse_players(players, shapes, keys, names_of_each(self._features(labels), examples))

    def _request(self, examples: Points, references: Points, choose: Any, **options: Any) -> AttributionRequest:
        limits: dict[str, Any] = {"memory": self._memory, "most_rows": self._most_rows, "progress": self._progress}
        limits |= {"weights": self._weights, "costs": self._costs}
        return AttributionRequest(examples, references, choose, **(limits | options))

    def _attribute(
        self,
        X: Any,
        selection: OutputSelection,
        check_additivity: bool,
        additional_forward_args: Any,
        players: Any,
        **sampling: Any,
    ) -> tuple[AttributionRequest, AttributionResult, Any]:
        """Explain; return the request, the result for what the user asked for, and the labels of X."""
        check_options(check_additivity=check_additivity)
        X, labels = self._plain(X)
        with self.engine.session(), _hints(self.engine.model, labels, additional_forward_args):
            engine = self.engine
            examples, references = engine.read(X, additional_forward_args, self._background)
            self._compare_scales(examples)
            plain_effort = sampling["effort"] == 1 and sampling["tolerance"] is None and sampling["method"] is None
            if self._weights is not None and not plain_effort:
                raise InputError(f"effort=, tolerance= and method= take references that count alike. {WEIGHTED}")
            method, by_cells = sampling["method"], isinstance(players, str) and players == "cells"
            if not (plain_effort and by_cells):
                partition = self._players(players, examples, labels)
                if isinstance(method, str):
                    method = sampling["method"] = parse_method(method, partition)
                sampling["players"] = partition if method is None else method.players
            predictions = None
            if selection.transform is not None:
                predictions = engine.native_outputs(examples, self._most_rows)
                check_output_names(self.output_names, engine.output_shape)
                engine = with_output_transform(
                    engine, selection.transform, examples, references, predictions, self._most_rows
                )
            request = self._request(
                examples, references or examples, selection.columns, strict=check_additivity, **sampling
            )
            result = self._carry_out(engine, request) if references else self._attribute_to_own(engine, request)
        result = result.selected(selection.resolved(result.predictions))
        if result.converged is not None and not result.converged.all():
            assert result.errors is not None
            most = np.max([largest_errors(*pair) for pair in zip(result.errors, result.values, strict=True)])
            warn_caller(
                f"tolerance={sampling['tolerance']:g} was reached by {result.converged.sum():,} of "
                f"{plural(len(result.converged), 'row')}; standard errors are up to {most:.2g} of a row's largest value. Raise "
                "max_effort=, or leave those rows out: explanation[explanation.converged]."
            )
        return request, result if predictions is None else replace(result, predictions=predictions), labels

    def _compare_scales(self, examples: Points) -> None:
        """Warn, in the first call, of inputs so far from the background that one of them may have been scaled, the other not."""
        checked, self._scales_compared = self._scales_compared, True
        if checked or self._background is None or self.engine.layer is not None or examples.form.packed:
            return
        if len(self._background) < FEWEST_ROWS:
            return
        samples = [self.engine.explained(points[:SOME_ROWS]) for points in (examples, self._background)]
        for x, reference, key in zip(*samples, self._keys(examples) or [None], strict=True):
            if x.dtype.kind != "f" or x.ndim < 2 or not len(x):
                continue
            x, reference, axes = x.astype(np.float64), reference.astype(np.float64), tuple(range(x.ndim - 1))
            with np.errstate(over="ignore", invalid="ignore"):  # of numbers whose squares are too large
                mean, expected, spread = x.mean(axes), reference.mean(axes), reference.std(axes)
            outside = (mean < reference.min(axes)) | (mean > reference.max(axes))  # not so of rare features
            varies = spread > 1e-6 * np.abs(expected)  # constants are baselines
            with np.errstate(over="ignore", invalid="ignore"):
                apart = np.nan_to_num(np.abs(mean - expected) / np.where(varies, spread, np.inf) * outside)
            worst = int(apart.argmax())
            if apart[worst] > FAR_APART:
                warn_caller(
                    f"X{'' if key is None else f' ({key!r})'} and the background seem to be on different scales: the means of "
                    f"feature {worst} are {mean[worst]:.3g} and {expected[worst]:.3g}, {apart[worst]:.0f} standard deviations "
                    "of the background apart. Scale both as the model was trained, or neither if it scales its input itself."
                )
                return

    def _carry_out(self, engine: Engine, request: AttributionRequest) -> AttributionResult:
        return (
            attribute(engine, request) if self._combine is None else attribute_combined(engine, request, self._combine)
        )

    def _attribute_to_own(self, engine: Engine, request: AttributionRequest) -> AttributionResult:
        """Explain every row against the references that the background, a function, returns for it."""
        assert self._references is not None
        form, results = request.examples.form, []
        if form.packed:
            raise InputError("a background that is a function takes tensors and arrays, no PackedSequence; pad it.")
        for row in range(len(request.examples)):
            example, what = request.examples[row : row + 1], f"background of row {row}"
            copies = [form.concatenated([x])[0] for x in example.inputs]  # which the function may write to
            with of_user(f"the function {named(self._references)} that returns the background, for row {row},"):
                background = self._references(dict(zip(form.names, copies, strict=True)) if form.names else copies)
            if isinstance(background, list) and len(background) == 1 and not form.several:
                (background,) = background
            values = plain(background, f"the {what}", self._batch_axis, self.model_features)[0]
            references = engine.read_background(values, what, form)
            example = replace(example, inputs=form.matched(example.inputs, references.inputs))
            results.append(self._carry_out(engine, replace(request, examples=example, references=references)))
        return AttributionResult.joined(results, [np.array([row]) for row in range(len(results))])

    # ------------------------------------------------------------------ results in the form of the input
    def _keys(self, examples: Points) -> list[Any] | None:
        """Return how the explained tensors are told apart; None where there is a single one."""
        if self.engine.layer is not None:
            count = len(self.engine.layer_axes)
            return list(range(count)) if count > 1 else None
        form = examples.form
        return form.names or (list(range(len(form.axes))) if form.several else None)

    def _restored(self, request: AttributionRequest, values: list[np.ndarray]) -> Any:
        """Return one array, or one for each input, with the rows where the user has them."""
        if request.players is not None and not request.players.are_cells:
            return values[0]
        if self.engine.layer is None:
            return request.examples.form.restore(values)
        placed = [np.moveaxis(v, 0, axis) for v, axis in zip(values, self.engine.layer_axes, strict=True)]
        return placed[0] if len(placed) == 1 else placed

    def _explained_data(self, examples: Points) -> list[np.ndarray]:
        """Return what is explained, the inputs or those of an inner layer, with the rows first."""
        data = self.engine.explained(examples)
        if self.engine.layer is None:
            return data
        return [np.moveaxis(d, axis, 0) for d, axis in zip(data, self.engine.layer_axes, strict=True)]


def _output_key(model: Any, output: Any) -> Any:
    """Return the index of a Keras model's output from its name; every other key as it is."""
    names = getattr(model, "output_names", None)
    by_key = isinstance(structure_of_outputs(model), Mapping)
    if not isinstance(output, str) or not isinstance(names, (list, tuple)) or output not in names or by_key:
        return output
    return list(names).index(output) if len(names) > 1 else None


def _unweighted(data: Any) -> tuple[Any, np.ndarray | None]:
    """Return the rows of shap's weighted summaries of data, and their weights; of all other data no weights."""
    if type(data).__module__.startswith("shap.maskers"):
        raise InputError(
            f"the background is a shap masker ({type(data).__name__}): give its rows, masker.data. DeepExplainer replaces no "
            "values; it compares with the background."
        )
    if callable(data) or not (hasattr(data, "weights") and hasattr(data, "group_names")):
        return data, None
    weights = np.asarray(data.weights, np.float64)
    return np.asarray(data.data), None if np.ptp(weights) == 0 else weights / weights.sum()


def names_of_each(feature_names: Any, points: Points) -> list[Any]:
    """Return the feature names of each input; None where there are none.

    Raises
    ------
    InputError
        If there are not as many names as an input has features.
    """
    form = points.form
    single = form.names is None and not form.several
    keys = list(form.names or range(len(points.inputs)))
    names_by_input = [feature_names] if single else names_of_inputs(feature_names, keys)
    for names, x in zip(names_by_input, points.inputs, strict=True):
        if names is not None:
            check_count(
                "feature_names", names, x.shape[-1] if len(x.shape) > 1 else 1
            )  # ids of categories are one feature
    return names_by_input


@contextmanager
def _hints(model: Any, labels: Any, additional_forward_args: Any) -> Iterator[None]:
    """Add to errors what is known of their cause: lengths that a table knows, a scaler in the explained function."""
    try:
        yield
    except InputError as error:
        forgotten = isinstance(error.__cause__, TypeError) and additional_forward_args is None
        if forgotten and getattr(labels, "lengths", None) is not None:
            raise InputError(
                f"{error} X knows the lengths of its rows: explainer(X, additional_forward_args=(X.lengths,))."
            ) from error
        _name_scaler(model, error)
        raise
    except ControlFlowError as error:
        _name_scaler(model, error)
        raise


def _name_scaler(model: Any, error: DeepShapError) -> None:
    """Raise an error that names a scaler of scikit-learn which the explained function calls, if it does."""
    if not any(word in str(error) for word in ("numpy", "__array__", "ndarray")):
        return
    scaler = next(reached(model, lambda obj: hasattr(obj, "inverse_transform") and hasattr(obj, "transform"), 4), None)
    if scaler is not None:
        raise type(error)(
            f"the explained function calls {type(scaler).__name__}, which computes with NumPy, outside of what can be "
            "followed: scale X and the background before, explain the network alone, and pass "
            f"inverse_transform=scaler.inverse_transform, so that explanations show the raw inputs. ({error})"
        ) from error


def check_model(model: Any) -> None:
    """Raise InputError for models of other libraries, and say what explains them."""
    owner = getattr(model, "__self__", model)  # of a bound method
    kinds, kind = packages(owner), type(owner).__name__
    if kinds & {"torch", "keras", "tensorflow"}:
        if kind == "RecursiveScriptModule" and not hasattr(owner, "training"):
            raise InputError(
                "the model is frozen TorchScript, compiled code that cannot be followed: explain the Python module that it was "
                "made of."
            )
        return
    if hasattr(owner, "module_"):  # of skorch
        raise InputError(f"{kind} is a wrapper of a network: explain the network itself, {kind}(...).module_.")
    if library := kinds & {"sklearn", "xgboost", "lightgbm", "catboost"}:
        raise InputError(
            f"{kind} is a model of {', '.join(sorted(library))}; deepshap explains PyTorch, Keras and TensorFlow models alone. "
            "shap.TreeExplainer explains trees, shap.LinearExplainer linear models, and shap.PermutationExplainer every function."
        )
    if library := kinds & {"darts", "neuralforecast", "pytorch_forecasting"}:
        raise InputError(
            f"{kind} is a model of {', '.join(library)}: explain its forecasts with "
            "deepshap.forecasting.explain_forecast(model, series)."
        )

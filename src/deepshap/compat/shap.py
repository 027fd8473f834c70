"""deepshap's explainer in place of ``shap.DeepExplainer``, for code that calls shap by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..attribution import AttributionRequest, AttributionResult, attribute
from ..engines.interface import Comparison, Contributions, Engine
from ..errors import InputError, of_user
from ..explainer import DeepExplainer as ExactExplainer
from . import Patch

PLACES = (
    ("shap", "DeepExplainer"),
    ("shap.explainers", "DeepExplainer"),
    ("shap.explainers", "Deep"),
)

_patch = Patch()


class DeepExplainer(ExactExplainer):
    """``deepshap.DeepExplainer`` with the signature, the attributes and the return types of ``shap.DeepExplainer``.

    Parameters
    ----------
    model : torch.nn.Module, keras.Model, callable or tuple
        As in ``deepshap.DeepExplainer``.
    data : tensor, array, list, tuple, dict or PackedSequence
        The background.
    session, learning_phase_flags : None
        For graphs of TensorFlow 1 only; not used.
    combine_mult_and_diffref : callable, optional
        As in the fork of shap for genomics: a function ``(mult, orig_inp, bg_data)`` of lists with an array for each input,
        multipliers (references, ...), the example (...) and its references (references, ...), that returns such a list of
        contributions. Their mean over the references takes the place of the attributions, and need not add up.
    **options : Any
        The other options of ``deepshap.DeepExplainer``.

    Raises
    ------
    InputError
        If a session of TensorFlow 1 is given, or the background cannot be read.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        session: Any = None,
        learning_phase_flags: Any = None,
        combine_mult_and_diffref: Callable[..., Sequence[Any]] | None = None,
        **options: Any,
    ) -> None:
        if session is not None or learning_phase_flags is not None:
            raise InputError(
                "deepshap.patch_shap() is active, and deepshap explains models of TensorFlow 2, which have no session and "
                "no learning phase. For shap's own explainer of TensorFlow 1 graphs call deepshap.unpatch_shap() first, or leave "
                "the `with deepshap.patch_shap():` block."
            )
        super().__init__(model, data, **options)
        if combine_mult_and_diffref is not None and not callable(combine_mult_and_diffref):
            raise InputError(f"combine_mult_and_diffref must be a function, not {combine_mult_and_diffref!r}.")
        if combine_mult_and_diffref is not None and self.engine.layer is not None:
            raise InputError(
                "combine_mult_and_diffref is for the model's inputs; an inner layer is explained without it."
            )
        self._combine = combine_mult_and_diffref

    @property
    def model(self) -> Any:
        """The explained model."""
        return self.engine.model

    @property
    def explainer(self) -> DeepExplainer:
        """The explainer itself, which in shap is one of the framework."""
        return self

    @property
    def expected_value(self) -> Any:
        """Mean output over the background; of TensorFlow's models a tensor, as shap returns it."""
        value = super().expected_value
        if self.engine.framework != "tensorflow":
            return value
        import tensorflow as tf

        return tf.convert_to_tensor(value)

    def shap_values(
        self,
        X: Any,
        ranked_outputs: int | None = None,
        output_rank_order: str = "max",
        check_additivity: bool = True,
        **options: Any,
    ) -> Any:
        """Attribute the model's outputs on ``X`` to its inputs; see ``deepshap.DeepExplainer.shap_values``.

        Returns
        -------
        numpy.ndarray, list, dict or tuple
            The same, but with ``ranked_outputs`` the indexes are a tensor for PyTorch models, as shap returns them.
        """
        found = super().shap_values(X, ranked_outputs, output_rank_order, check_additivity, **options)
        if ranked_outputs is None:
            return found
        values, indexes = found
        return values, self.engine.as_numbers(indexes)

    def _carry_out(self, engine: Engine, request: AttributionRequest) -> AttributionResult:
        if self._combine is None:
            return attribute(engine, request)
        if request.players is not None or request.weights is not None:
            raise InputError(
                "combine_mult_and_diffref takes the multipliers of Deep SHAP, cell by cell and against rows that count alike: "
                "leave effort=, tolerance=, players= and method= out."
            )
        totals: list[np.ndarray] = []

        def collect(part: Comparison, at: slice, block: slice, found: Contributions) -> None:
            assert found.multipliers is not None
            multipliers = [m[1] for m in found.multipliers]  # (k, examples, references, ...)
            x, r = engine.explained(part.examples), engine.explained(part.references)
            if not (at.start or block.start):  # also where it begins again in float64
                rows = len(request.examples)
                totals[:] = [np.zeros((rows, *m.shape[3:], len(m))) for m in multipliers]
            for output, example in np.ndindex(multipliers[0].shape[:2]):
                mult = [m[output, example] for m in multipliers]
                for total, value in zip(totals, self._combined(mult, [v[example] for v in x], r), strict=True):
                    total[at.start + example, ..., output] += value.sum(0) / len(request.references)

        result = attribute(engine, replace(request, collect=collect))
        return replace(result, values=totals)

    def _combined(
        self, mult: list[np.ndarray], example: list[np.ndarray], references: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Call the user's function."""
        assert self._combine is not None
        with of_user("combine_mult_and_diffref"):
            found = [np.asarray(one) for one in self._combine(mult, example, references)]
        shapes = [one.shape for one in found]
        if shapes != [m.shape for m in mult]:
            raise InputError(
                f"combine_mult_and_diffref must return a list of arrays of the multipliers' shapes, "
                f"{[m.shape for m in mult]}, not {shapes}."
            )
        return found


def patch_shap() -> Patch:
    """Let ``shap.DeepExplainer`` be deepshap's, until ``unpatch_shap()`` or to the end of a ``with`` block.

    Replaces ``shap.DeepExplainer``, ``shap.explainers.DeepExplainer`` and ``shap.explainers.Deep``; code that has taken the
    class out of shap before (``from shap import DeepExplainer``) keeps shap's. Patching twice is the same as once; a
    ``with`` block inside of another, or after a call, leaves the patch in place.

    Returns
    -------
    Patch
        A context manager; ignore it to patch for good.

    Examples
    --------
    >>> with deepshap.patch_shap():
    ...     values = shap.DeepExplainer(lstm, background).shap_values(x)
    """
    return _patch.apply(dict.fromkeys(PLACES, DeepExplainer))


def unpatch_shap() -> None:
    """Give shap its own ``DeepExplainer`` back. Does nothing if ``patch_shap`` is not in effect."""
    _patch.restore()

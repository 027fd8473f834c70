"""deepshap's explainer in place of ``shap.DeepExplainer``, for code that calls shap by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InputError
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
    combine_mult_and_diffref, **options
        As in ``deepshap.DeepExplainer``.

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
        super().__init__(model, data, combine_mult_and_diffref=combine_mult_and_diffref, **options)

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
        result = super().shap_values(X, ranked_outputs, output_rank_order, check_additivity, **options)
        if ranked_outputs is None:
            return result
        values, indexes = result
        return values, self.engine.as_numbers(indexes)


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
    >>> import shap
    >>> with deepshap.patch_shap():
    ...     values = shap.DeepExplainer(model, background).shap_values(x)
    """
    return _patch.apply(dict.fromkeys(PLACES, DeepExplainer))


def unpatch_shap() -> None:
    """Give shap its own ``DeepExplainer`` back. Does nothing if ``patch_shap`` is not in effect.

    Examples
    --------
    >>> patch = deepshap.patch_shap()
    >>> deepshap.unpatch_shap()
    """
    _patch.restore()

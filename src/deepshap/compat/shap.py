"""Put deepshap's explainer in the place of ``shap.DeepExplainer``, for code that calls shap by name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

from ..errors import InputError
from ..explainer import DeepExplainer as ExactExplainer

NAMES = (
    ("shap", "DeepExplainer"),
    ("shap.explainers", "DeepExplainer"),
    ("shap.explainers", "Deep"),
    ("shap.explainers._deep", "DeepExplainer"),
)

_originals: dict[tuple[ModuleType, str], Any] = {}


class DeepExplainer(ExactExplainer):
    """``deepshap.DeepExplainer`` with the signature and the return types of ``shap.DeepExplainer``.

    Parameters
    ----------
    model : torch.nn.Module, keras.Model, callable or tuple
        As in ``deepshap.DeepExplainer``.
    data : tensor, array, list, tuple, dict or PackedSequence
        The background.
    session, learning_phase_flags : None
        For graphs of TensorFlow 1 only; not used.
    **options : Any
        The other options of ``deepshap.DeepExplainer``.

    Raises
    ------
    InputError
        If a session of TensorFlow 1 is given, or the background cannot be read.
    """

    def __init__(
        self, model: Any, data: Any, session: Any = None, learning_phase_flags: Any = None, **options: Any
    ) -> None:
        if session is not None or learning_phase_flags is not None:
            raise InputError(
                "deepshap.patch_shap() is active, and deepshap explains models of TensorFlow 2, which have no session and "
                "no learning phase. For shap's own explainer of TensorFlow 1 graphs call deepshap.unpatch_shap() first, or leave "
                "the `with deepshap.patch_shap():` block."
            )
        super().__init__(model, data, **options)

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


class Patch:
    """What ``patch_shap`` returns: a context that puts shap back as it was before."""

    def __init__(self, nested: bool) -> None:
        self._nested = nested

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._nested:
            unpatch_shap()


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
    nested = bool(_originals)
    if not nested:
        for path, name in NAMES:
            module = import_module(path)
            _originals[module, name] = getattr(module, name)
            setattr(module, name, DeepExplainer)
    return Patch(nested)


def unpatch_shap() -> None:
    """Give shap its own ``DeepExplainer`` back. Does nothing if ``patch_shap`` is not in effect."""
    while _originals:
        (module, name), original = _originals.popitem()
        setattr(module, name, original)

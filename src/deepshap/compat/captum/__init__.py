"""captum's DeepLIFT classes on the exact engine, public as ``deepshap.captum``, and ``patch_captum``."""

from .. import Patch
from .deeplift import (
    DeepLift,
    DeepLiftShap,
    LayerDeepLift,
    LayerDeepLiftShap,
    NeuronDeepLift,
    NeuronDeepLiftShap,
)

__all__ = [
    "DeepLift",
    "DeepLiftShap",
    "LayerDeepLift",
    "LayerDeepLiftShap",
    "NeuronDeepLift",
    "NeuronDeepLiftShap",
    "patch_captum",
    "unpatch_captum",
]

MODULES = {
    "captum.attr._core.deep_lift": (DeepLift, DeepLiftShap),
    "captum.attr._core.layer.layer_deep_lift": (LayerDeepLift, LayerDeepLiftShap),
    "captum.attr._core.neuron.neuron_deep_lift": (NeuronDeepLift, NeuronDeepLiftShap),
}

_patch = Patch()


def patch_captum() -> Patch:
    """Let captum's six DeepLIFT classes be deepshap's, until ``unpatch_captum()`` or to the end of a ``with`` block.

    This is for libraries that import ``captum.attr`` themselves. Code that has taken a class out of captum before
    (``from captum.attr import DeepLift``) keeps captum's: patch first.

    Returns
    -------
    Patch
        A context manager; ignore it to patch for good.

    Raises
    ------
    ImportError
        If captum is not installed.

    Examples
    --------
    >>> import captum.attr
    >>> with deepshap.patch_captum():
    ...     attributions = captum.attr.DeepLiftShap(model).attribute(x, background, target=0)
    """
    places = {(path, ours.__name__): ours for path, classes in MODULES.items() for ours in classes}
    return _patch.apply(places | {("captum.attr", name): ours for (_, name), ours in places.items()})


def unpatch_captum() -> None:
    """Give captum its own classes back. Does nothing if ``patch_captum`` is not in effect.

    Examples
    --------
    >>> patch = deepshap.patch_captum()
    >>> deepshap.unpatch_captum()
    """
    _patch.restore()

"""Models that take derivatives of their own (forces, physics-informed networks): written out as operations that have rules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...errors import UnsupportedOperationError
from ._compat import basic_decompositions, triton_is_safe
from .calls import DerivativeTaken, unwritten_message
from .state import Contents, preserved
from .table import USER_OPERATIONS

T = TypeVar("T")
Call = Callable[[Sequence[Tensor]], Tensor]


class Derivatives:
    """Whether a model takes derivatives of its own, and how it is run then.

    Backward passes carry multipliers while a model is explained. So what such a model computes is recorded on plain tensors
    first, down to torch's basic operations, backward ones among them, and these are followed in the model's place.
    """

    def __init__(self, contents: Contents, layer: Any, rules: dict[Any, Any]) -> None:
        self._contents, self._layer, self._rules = contents, layer, rules
        self.taken = False

    def natively(self, run: Callable[[], T]) -> T:
        """Run the model by itself, without gradients unless it asks for some."""
        if not self.taken:
            try:
                with preserved(self._contents), torch.no_grad():
                    return run()
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
        self.taken = True
        with preserved(self._contents), torch.enable_grad():
            return run()

    def allowed(self, run: Callable[[], T]) -> T:
        """Run, and once more with what the model computes written out, where that takes derivatives.

        By that layers are lost, and so are rules of the user's own.
        """
        try:
            return run()
        except DerivativeTaken as error:
            refusal = UnsupportedOperationError(str(error))
            if self._layer is not None:
                raise refusal from None
            if self._rules or USER_OPERATIONS:
                lost = " Without rules that are registered, which would be lost by it, that is done for you."
                raise UnsupportedOperationError(f"{refusal}{lost}") from None
        self.taken = True
        try:
            return run()
        except (UnsupportedOperationError, RuntimeError) as error:
            self.taken = False
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise UnsupportedOperationError(
                f"{refusal} Recorded as basic operations, what it computes cannot be explained either: {error}"
            ) from error

    def written_out(self, call: Call, rows: Sequence[Tensor]) -> Call:
        """What a model computes of rows, as a function of such rows; the model itself where it takes no derivatives."""
        if not self.taken or self._layer is not None or self._rules or USER_OPERATIONS:
            return call
        if "triton" not in sys.modules and find_spec("triton") is not None and not triton_is_safe():
            raise UnsupportedOperationError(
                "the model takes a derivative of its own. To write that out, torch imports Triton, which ends the process if "
                "TensorFlow has been imported before it. Write `import triton` before `import tensorflow`."
            )
        from torch.fx.experimental.proxy_tensor import make_fx

        try:
            with torch.enable_grad():
                copies = [r.detach().clone() for r in rows]
                graph = make_fx(lambda *given: call(given), basic_decompositions())(*copies)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise UnsupportedOperationError(unwritten_message(error)) from error
        graph.graph.eliminate_dead_code()  # what forward mode only asked the shapes of
        graph.recompile()
        return lambda given: graph(*given)

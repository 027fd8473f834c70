"""Recurrent layers and cells: forward values once per example and once per reference, multipliers per pair.

``cells`` has the formulas of one step and ``sequence`` runs a network over its steps. ``stepwise`` writes the backward rule out
in torch, ``fused`` computes it with compiled kernels. ``context`` tells a layer which of its rows repeat. ``layers`` is what the
tracer calls for ``torch.lstm`` and its kin; ``loops`` follows loops of single cells, whose rule by kernels is in ``single``.
"""

from ....formulas.cells import Weights
from .cells import GRU, LSTM, ReluRNN, TanhRNN
from .layers import layer
from .loops import OfStep, single_step
from .sequence import Memory

LEFT = Memory, OfStep  # what recurrent layers and cells leave for their rules

__all__ = ["GRU", "LEFT", "LSTM", "ReluRNN", "TanhRNN", "Weights", "layer", "single_step"]

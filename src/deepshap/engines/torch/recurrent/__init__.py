"""Recurrent layers and cells: forward values once per example and once per reference, multipliers per pair.

``cells`` holds the formulas of one time step and ``sequence`` runs a network over its steps. The backward rule is in
``stepwise`` (plain torch, any device), ``fused`` (compiled kernels for whole sequences) and ``single`` (compiled kernels
for single steps). ``context`` detects repeated rows. The tracer calls ``layers`` for ``torch.lstm`` and the other layers,
and ``loops`` for cells such as ``torch.lstm_cell`` that the model calls in a loop.
"""

from ....formulas.cells import Weights
from .cells import GRU, LSTM, ReluRNN, TanhRNN
from .layers import layer
from .loops import CellStep, single_step
from .sequence import Memory

MEMORY_TYPES = Memory, CellStep  # what recurrent layers and cells keep for their rules

__all__ = ["GRU", "LSTM", "MEMORY_TYPES", "ReluRNN", "TanhRNN", "Weights", "layer", "single_step"]

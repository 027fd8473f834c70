"""Recurrent layers and cells: forward values once per example and once per reference, multipliers per pair.

``cells`` has the formulas of one step, ``sequence`` the run of a network over its steps, ``stepwise`` its rule written
out in torch and ``fused`` the same by compiled kernels, ``products`` what these leave to do, ``pairing`` which rows make
the pairs, ``layers`` what torch calls. ``loops`` are those of single steps, whose rule by kernels is ``single``.
"""

from ....mathematics.cells import Weights
from .cells import GRU, LSTM, ReluRNN, TanhRNN
from .layers import layer
from .loops import OfStep, single_step
from .sequence import Memory

LEFT = Memory, OfStep  # what recurrent layers and cells leave for their rules

__all__ = ["GRU", "LEFT", "LSTM", "ReluRNN", "TanhRNN", "Weights", "layer", "single_step"]

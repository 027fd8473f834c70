"""Recurrent layers and cells: forward values once per example and once per reference, multipliers per pair.

``cells`` has the formulas of one step, ``sequence`` the run of a network over its steps, ``stepwise`` its rule written
out in torch and ``fused`` the same by compiled kernels, ``products`` what these leave to do, ``pairing`` which rows make
the pairs, ``layers`` what torch calls. ``loops`` are those of single steps, whose rule by kernels is ``single``.
"""

from ....mathematics.cells import Weights
from .cells import GRU, LSTM, ReluRNN, TanhRNN
from .layers import layer
from .loops import single_step

__all__ = ["GRU", "LSTM", "ReluRNN", "TanhRNN", "Weights", "layer", "single_step"]

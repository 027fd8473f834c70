"""torchvision's wheels of the index are built for CUDA; beside a CPU's torch they import once their operators have names."""

from __future__ import annotations

from importlib.util import find_spec

import torch

OPERATORS = "nms qnms deform_conv2d ps_roi_align ps_roi_pool roi_align qroi_align roi_pool"
BACKWARD = "deform_conv2d ps_roi_align ps_roi_pool roi_align roi_pool"

if find_spec("torchvision") is not None and not torch.cuda.is_available():
    names = torch.library.Library("torchvision", "DEF")
    for name in (*OPERATORS.split(), *(f"_{name}_backward" for name in BACKWARD.split())):
        names.define(f"{name}(Tensor x) -> Tensor")

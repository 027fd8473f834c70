"""The table and the cases agree."""

from __future__ import annotations

import pytest
from cases.of_torch import CASES
from helpers import explainer_of

from deepshap.engines.torch import names
from deepshap.engines.torch.composites import arithmetic
from deepshap.engines.torch.table import OPERATIONS
from deepshap.engines.torch.tracer import Tracer

NEED_A_GPU = {"cuda"}
IN_A_FILE_OF_THEIR_OWN = {
    *("grouped_mm", "_grouped_mm"),  # test_grouped.py
    *("sparse.mm", "sparse.addmm", "smm", "hspmm", "to_dense", *arithmetic.FOREACH),  # test_lists_and_sparse.py
}
# test_exported.py
OF_EXPORTED_PROGRAMS = {f"aten.{name}" for name in names.ATEN} | {
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_fft_r2c", "_fft_c2r", "_fft_c2c"),
    *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
}


def test_every_signature_of_aten_is_in_the_table():
    assert {f"aten.{name}" for name in names.ATEN} == {name for name in OPERATIONS if name.startswith("aten.")}


@pytest.mark.wide
def test_every_operation_of_the_table_is_met_by_a_case(monkeypatch):
    seen, follow = set(), Tracer._run_active
    monkeypatch.setattr(
        Tracer, "_run_active", lambda self, call, *rest: (seen.add(call.name), follow(self, call, *rest))[1]
    )
    for case in CASES:
        engine = explainer_of(case, case.model(), case.inputs(1, 1)).engine
        with engine.session():
            engine.list_operations(engine.read(case.inputs(1, 2), case.args(1) or None)[0])
    kinds = ("constant", "random")  # nothing to explain; refused (test_errors.py)
    expected = {name for name, operation in OPERATIONS.items() if operation.kind not in kinds}
    assert sorted(expected - seen - NEED_A_GPU - IN_A_FILE_OF_THEIR_OWN - OF_EXPORTED_PROGRAMS) == []

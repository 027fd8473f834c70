"""The table and the cases agree."""

from __future__ import annotations

import pytest
from cases.of_torch import CASES
from helpers import explainer_of

from deepshap.engines.torch.table import OPERATIONS
from deepshap.engines.torch.trace import Tracer

NEED_A_GPU = {"cuda"}
IN_A_FILE_OF_THEIR_OWN = {"grouped_mm", "_grouped_mm"}  # test_grouped.py


@pytest.mark.wide
def test_every_operation_of_the_table_is_met_by_a_case(monkeypatch):
    seen, follow = set(), Tracer._followed
    monkeypatch.setattr(
        Tracer, "_followed", lambda self, call, *rest: (seen.add(call.name), follow(self, call, *rest))[1]
    )
    for case in CASES:
        engine = explainer_of(case, case.model(), case.inputs(1, 1)).engine
        with engine.session():
            engine.uses(engine.read(case.inputs(1, 2), case.args(1) or None)[0])
    kinds = ("constant", "random")  # nothing to explain; refused (test_errors.py)
    expected = {name for name, operation in OPERATIONS.items() if operation.kind not in kinds}
    assert sorted(expected - seen - NEED_A_GPU - IN_A_FILE_OF_THEIR_OWN) == []

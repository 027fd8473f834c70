"""The table and the cases agree."""

from __future__ import annotations

import pytest
from cases.of_torch import CASES
from helpers import explainer_of

from deepshap.engines.torch.table import OPERATIONS
from deepshap.engines.torch.trace import seen_operations

NEED_A_GPU = {"cuda"}
IN_A_FILE_OF_THEIR_OWN = {"grouped_mm", "_grouped_mm"}  # test_grouped.py


@pytest.mark.wide
def test_every_operation_of_the_table_is_met_by_a_case():
    with seen_operations() as seen:
        for case in CASES:
            engine = explainer_of(case, case.model(), case.inputs(1, 1)).engine
            with engine.session():
                engine.uses(engine.read(case.inputs(1, 2), case.args(1) or None)[0])
    kinds = ("constant", "random")  # nothing to explain; refused (test_errors.py)
    expected = {name for name, operation in OPERATIONS.items() if operation.kind not in kinds}
    assert sorted(expected - seen - NEED_A_GPU - IN_A_FILE_OF_THEIR_OWN) == []

"""The table of TensorFlow's operations and the cases agree."""

from __future__ import annotations

import pytest
import tensorflow as tf
from cases.rare_of_tensorflow import CASES

from deepshap.engines.tensorflow.engine import TensorFlowEngine
from deepshap.engines.tensorflow.graph_analysis import ACTIVE, STATIC, GraphAnalysis
from deepshap.engines.tensorflow.table import OPERATIONS

# Other spellings of operations that are met, which TensorFlow itself no longer writes into graphs.
OLD = {
    "Add", "AccumulateNV2", "BatchMatMul", "BatchMatMulV3", "Div", "Inv", "Gather", "MaxPoolV2", "TopK", "Concat",
    "BiasAddV1", "MatrixDiag", "MatrixDiagV2", "MatrixDiagPart", "MatrixDiagPartV2", "MatrixSetDiag", "MatrixSetDiagV2",
    "Conv3DBackpropInput", "Snapshot", "CheckNumericsV2", "DebugIdentityV2", "PlaceholderWithDefault", "DeepCopy",
}  # fmt: skip
CREATED = {"EmptyTensorList", "TensorListReserve"}  # lists that hold nothing yet


def met(model, rows):
    """The types of the operations that what depends on the input passes through."""
    engine = TensorFlowEngine(model)
    with engine.session():
        points, _ = engine.read(rows, None)
        graph = engine.graph(points)
        analysis = GraphAnalysis(graph.library, OPERATIONS)
        given = len(points.inputs)
        analysis.run(graph.body, [ACTIVE] * given + [STATIC] * (len(graph.body.inputs) - given))
    return analysis.met


def test_the_operations_of_the_table_are_tensorflows():
    assert [name for name in OPERATIONS if not hasattr(tf.raw_ops, name)] == []


@pytest.mark.wide
def test_every_operation_of_the_table_is_met_by_a_case():
    seen = set()
    for case in CASES:
        seen |= met(tf.function(case.model("float32"), autograph=False), case.rows(1, 1, "float32"))
    expected = {
        name for name, operation in OPERATIONS.items() if operation.kind not in ("constant", "random", "variable")
    }
    assert sorted(expected - seen - OLD - CREATED) == []
    assert sorted(seen & OLD) == []

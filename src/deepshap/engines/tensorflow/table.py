"""THE table: what every operation of TensorFlow is, under the type that it has in a graph.

Adding an operation: a function in ``formulas/`` or a rule in ``rules.py`` if it needs one, a line here, a line in
``tests/support/cases/both.py``, or in ``of_tensorflow.py`` beside it, with the reason why it is for one framework alone.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...formulas import secants
from . import axes, composites, control_flow, rules
from .control_flow import list_operation
from .operations import (
    COMPOSITE,
    CONSTANT,
    CONTROL,
    CUSTOM,
    ELEMENTWISE,
    IDENTITY,
    INDEX,
    LINEAR,
    MULTILINEAR,
    QUADRATIC,
    RANDOM,
    VARIABLE,
    Operation,
)

OPERATIONS: dict[str, Operation] = {}


def is_known(kind: str) -> bool:
    """Return whether TensorFlow has operations of this type."""
    return hasattr(tf.raw_ops, kind)


def _of_kind(kind: str, words: str, **options: Any) -> None:
    for name in words.split():
        assert name not in OPERATIONS, name
        OPERATIONS[name] = Operation(kind, **options)


_of_kind(CONSTANT, "Const Shape ShapeN Rank Size ZerosLike OnesLike NoOp BroadcastArgs BroadcastGradientArgs")
_of_kind(CONSTANT, "TensorListLength TensorListElementShape VariableShape")
_of_kind(
    IDENTITY,
    "Identity IdentityN Snapshot StopGradient PreventGradient CheckNumerics CheckNumericsV2 EnsureShape "
    "PlaceholderWithDefault DebugIdentityV2",
)

# ---------------------------------------------------------------------- linear
_of_kind(
    LINEAR,
    "Sum Mean Reshape Squeeze ExpandDims Transpose "
    "ConjugateTranspose Concat ConcatV2 Pack Unpack Split SplitV Slice StridedSlice Pad PadV2 MirrorPad "
    "Tile BroadcastTo Reverse ReverseV2 ReverseSequence Roll Cumsum MatrixDiag MatrixDiagV2 MatrixDiagV3 "
    "MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MatrixBandPart "
    "Diag DiagPart AvgPool AvgPool3D ResizeBilinear ResizeNearestNeighbor ResizeBicubic ScaleAndTranslate "
    "SpaceToBatch SpaceToBatchND BatchToSpace BatchToSpaceND SpaceToDepth DepthToSpace ExtractImagePatches "
    "ExtractVolumePatches SegmentSum SegmentMean SparseSegmentSum SparseSegmentMean "
    "TensorStridedSliceUpdate FFT IFFT FFT2D IFFT2D FFT3D IFFT3D "
    "RFFT IRFFT RFFT2D IRFFT2D Real Imag Complex Conj DynamicPartition DynamicStitch ParallelDynamicStitch "
    "Fill DeepCopy FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3",
)

_of_kind(CUSTOM, "Add AddV2 AddN AccumulateNV2", rule=rules.total())
_of_kind(CUSTOM, "Sub", rule=rules.total(1, -1))
_of_kind(CUSTOM, "Neg", rule=rules.total(-1))
_of_kind(LINEAR, "BiasAdd BiasAddV1")

# ---------------------------------------------------------------------- products
_of_kind(
    MULTILINEAR,
    "MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum Conv3D DepthwiseConv2dNative Conv2DBackpropInput "
    "Conv3DBackpropInput Conv3DBackpropInputV2 DepthwiseConv2dNativeBackpropInput Cross",
)
_of_kind(COMPOSITE, "Conv2D", function=composites.conv2d)
_of_kind(QUADRATIC, "SquaredDifference L2Loss")
_of_kind(CUSTOM, "Mul", rule=axes.product_or_normalization(rules.product))
_of_kind(CUSTOM, "MulNoNan", rule=rules.product_or_zero)
_of_kind(CUSTOM, "RealDiv Div", rule=axes.quotient_or_normalization(rules.quotient))
_of_kind(CUSTOM, "DivNoNan", rule=rules.quotient_or_zero)

# ---------------------------------------------------------------------- elementwise
for _name, _secant in {
    "Tanh": secants.tanh,
    "Sigmoid": secants.sigmoid,
    "Exp": secants.exp,
    "Expm1": secants.expm1,
    "Log": secants.log,
    "Log1p": secants.log1p,
    "Sqrt": secants.sqrt,
    "Rsqrt": secants.rsqrt,
    "Square": secants.square,
    "Reciprocal": secants.reciprocal,
    "Inv": secants.reciprocal,
    "Relu": secants.relu,
}.items():
    _of_kind(ELEMENTWISE, _name, secant=_secant)
_of_kind(
    ELEMENTWISE,
    "Relu6 Elu Selu LeakyRelu Softplus Softsign Abs Sign Floor Ceil Round Rint Sin Cos Tan Asin Acos Atan Sinh Cosh "
    "Asinh Acosh Atanh Erf Erfc Erfinv Ndtri Lgamma Digamma BesselI0 BesselI0e BesselI1 BesselI1e BesselJ0 BesselJ1 "
    "BesselK0 BesselK0e BesselK1 BesselK1e BesselY0 BesselY1 Dawsn Expint FresnelCos FresnelSin Spence Pow Maximum "
    "Minimum Atan2 FloorMod Mod TruncateMod FloorDiv TruncateDiv Xlogy Xlog1py Xdivy ClipByValue Igamma Igammac "
    "Betainc Zeta Polygamma NextAfter",
)
_of_kind(
    ELEMENTWISE,
    "Greater GreaterEqual Less LessEqual Equal NotEqual ApproximateEqual LogicalAnd LogicalOr LogicalNot IsNan IsInf "
    "IsFinite Bucketize LookupTableFindV2 BitwiseAnd BitwiseOr BitwiseXor Invert LeftShift RightShift",
)
_of_kind(COMPOSITE, "ComplexAbs", function=composites.modulus)
_of_kind(CUSTOM, "Cast", rule=rules.cast)

# ---------------------------------------------------------------------- choices and ids
_of_kind(COMPOSITE, "Select SelectV2", function=composites.select)
_of_kind(CUSTOM, "Gather GatherV2 ResourceGather", rule=rules.lookup)
_of_kind(CUSTOM, "GatherNd", rule=rules.lookup_nd)
_of_kind(CUSTOM, "ScatterNd", rule=rules.added(1, 0))
_of_kind(CUSTOM, "UnsortedSegmentSum", rule=rules.added(0, 1))
_of_kind(CUSTOM, "TensorScatterAdd", rule=rules.added(2, 1))
_of_kind(CUSTOM, "TensorScatterSub", rule=rules.added(2, 1, -1))
_of_kind(COMPOSITE, "TensorScatterUpdate", function=composites.update)
_of_kind(CUSTOM, "OneHot", rule=rules.one_hot)
_of_kind(COMPOSITE, "DenseBincount", function=composites.bincount)

# ---------------------------------------------------------------------- along axes
_of_kind(CUSTOM, "Softmax", rule=rules.softmax)
_of_kind(CUSTOM, "LogSoftmax", rule=rules.log_softmax)
_of_kind(CUSTOM, "SoftmaxCrossEntropyWithLogits SparseSoftmaxCrossEntropyWithLogits", rule=rules.cross_entropy)
_of_kind(CUSTOM, "Max Any", rule=axes.cross_max())
_of_kind(CUSTOM, "Min All", rule=axes.cross_max(-1))
_of_kind(CUSTOM, "MaxPool MaxPoolV2 MaxPool3D", rule=axes.max_pool)
_of_kind(COMPOSITE, "EuclideanNorm", function=composites.norm)
_of_kind(CUSTOM, "Prod", rule=axes.product_over_axes)
_of_kind(CUSTOM, "MatrixDeterminant", rule=rules.polynomial)
_of_kind(COMPOSITE, "TopKV2 TopK", function=composites.top_k, positions=(1,))
_of_kind(COMPOSITE, "Cumprod", function=composites.running_product)
_of_kind(COMPOSITE, "CumulativeLogsumexp", function=composites.running_logsumexp)
_of_kind(COMPOSITE, "LRN", function=composites.local_response_norm)
_of_kind(COMPOSITE, "ArgMax", function=composites.arg_extreme(), positions=(0,))
_of_kind(COMPOSITE, "ArgMin", function=composites.arg_extreme(-1), positions=(0,))
_of_kind(INDEX, "Where UniqueV2 Unique LowerBound UpperBound InvertPermutation")

# ---------------------------------------------------------------------- control
_of_kind(VARIABLE, "ReadVariableOp", function=control_flow.read)
_of_kind(VARIABLE, "AssignVariableOp AssignAddVariableOp AssignSubVariableOp", function=control_flow.write)
_of_kind(CONTROL, "PartitionedCall StatefulPartitionedCall", function=control_flow.call)
_of_kind(CONTROL, "While StatelessWhile", function=control_flow.loop)
_of_kind(CONTROL, "If StatelessIf Case StatelessCase", function=control_flow.branch)
_of_kind(
    CONTROL,
    "TensorListReserve EmptyTensorList TensorListGetItem TensorListSetItem TensorListStack TensorListFromTensor "
    "TensorListPushBack TensorListPopBack TensorListResize TensorListGather TensorListScatter TensorListScatterV2",
    function=list_operation,
)
_of_kind(
    RANDOM,
    "RandomUniform RandomStandardNormal RandomUniformInt TruncatedNormal RandomShuffle Multinomial RandomGamma "
    "RandomPoissonV2 StatelessRandomUniform StatelessRandomUniformV2 StatelessRandomNormal StatelessRandomNormalV2 "
    "StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformFullIntV2 "
    "StatelessTruncatedNormal StatelessTruncatedNormalV2 "
    "StatelessRandomBinomial StatelessRandomPoisson StatelessMultinomial StatelessShuffle StatefulUniform "
    "StatefulStandardNormalV2 StatefulUniformInt RngReadAndSkip StatelessRandomGetKeyCounter",
)

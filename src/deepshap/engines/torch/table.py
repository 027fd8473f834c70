"""THE table: what every operation of torch is, under its canonical name (``names.py``).

Adding an operation: a function in ``formulas/`` or ``composites/`` if it needs one, a line here, a line in
``tests/support/cases/both.py``, or in ``of_torch.py`` beside it, with the reason why it is for one framework alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...formulas import secants
from . import recurrent, rules
from .composites import (
    algebra,
    arithmetic,
    aten,
    attention,
    losses,
    norms,
    packing,
    positions,
    reductions,
    scatter,
    selection,
)
from .convolutions import with_fast_backward
from .operations import (
    CAST,
    COMPOSITE,
    CONSTANT,
    ELEMENTWISE,
    INDEX,
    LINEAR,
    MULTILINEAR,
    QUADRATIC,
    RANDOM,
    TO_PYTHON,
    Operation,
)

OPERATIONS: dict[str, Operation] = {}
USER_OPERATIONS: dict[Any, Operation] = {}


def _of_kind(kind: str, words: str, **options: Any) -> None:
    for name in words.split():
        assert name not in OPERATIONS, name
        OPERATIONS[name] = Operation(kind, **options)


def _alias(tensor: Tensor) -> Tensor:
    return tensor.view_as(tensor)


def _view(tensor: Tensor, *shape: Any, **options: Any) -> Tensor:
    """View a tensor; copy it where a rule returned other strides than torch's own kernel, as that of attention does."""
    try:
        return tensor.view(*shape, **options)
    except RuntimeError:
        return tensor.reshape(*shape, **options)


def _as_array(value: Any, **options: Any) -> Tensor:
    """Run torch.asarray without its warning about gradients."""
    return torch.asarray(value, **{"requires_grad": value.requires_grad, **options})


def _zeroed(empty: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that zeroes new memory, whose old contents would differ between the sides."""
    return lambda *args, **kwargs: empty(*args, **kwargs).zero_()


# ---------------------------------------------------------------------- constant
_of_kind(
    CONSTANT,
    "shape size dim ndim ndimension numel nelement dtype device layout stride storage_offset element_size "
    "itemsize nbytes __len__ is_contiguous is_floating_point is_complex is_signed is_inference is_nested "
    "is_sparse is_quantized is_mkldnn is_cuda is_cpu is_mps is_xpu is_meta is_leaf requires_grad "
    "requires_grad.__set__ grad grad_fn get_device is_neg is_conj data_ptr untyped_storage output_nr name "
    "result_type can_cast promote_types is_same_size is_tensor sym_size sym_numel zeros_like ones_like "
    "new_zeros new_ones broadcast_shapes register_hook retain_grad "
    "__hash__ __repr__ __str__ __format__ __dir__ is_sparse_csr is_vulkan is_ipu is_maia is_mtia is_pinned "
    "is_shared _version _base _is_view is_set_to",
)
for _name in ("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"):
    _of_kind(CONSTANT, _name, function=_zeroed(getattr(Tensor if _name.startswith("new") else torch, _name)))
_of_kind(CONSTANT, "_nested_tensor_from_mask_left_aligned", function=lambda *_: False)  # keeps to plain tensors
_of_kind(CONSTANT, "requires_grad_", function=lambda tensor, *_: tensor)

# ---------------------------------------------------------------------- linear
_of_kind(
    LINEAR,
    "add sub rsub neg positive sum nansum mean nanmean cumsum diff trace "
    "reshape reshape_as view_as flatten ravel unflatten permute transpose t T mT H mH adjoint movedim "
    "squeeze unsqueeze expand expand_as broadcast_to broadcast_tensors repeat tile "
    "as_strided cartesian_prod combinations cat stack hstack vstack dstack column_stack block_diag meshgrid "
    "hsplit vsplit dsplit "
    "slice select_scatter slice_scatter diagonal_scatter roll flip fliplr flipud rot90 unfold fold "
    "im2col col2im diagonal diag diag_embed diagflat tril triu atleast_1d atleast_2d atleast_3d clone "
    "contiguous to_dense alias lift_fresh lift_fresh_copy copy zero fill pad constant_pad_nd reflection_pad1d "
    "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d avg_pool1d "
    "avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d "
    "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d _fft_r2c _fft_c2r _fft_c2c "
    "pixel_shuffle pixel_unshuffle channel_shuffle deg2rad rad2deg fft "
    "ifft rfft irfft hfft ihfft fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn fftshift ifftshift stft istft real imag "
    "view_as_real view_as_complex conj resolve_conj resolve_neg complex ",
)
_of_kind(LINEAR, "view", function=_view)
_of_kind(LINEAR, "detach data", function=_alias)
_of_kind(LINEAR, "__deepcopy__", function=lambda tensor, _: tensor.clone())
_of_kind(
    LINEAR,
    "__getitem__ __setitem__ index select narrow index_select take take_along_dim gather index_add index_copy index_put "
    "index_fill nll_loss repeat_interleave masked_select masked_scatter "
    "max_unpool1d max_unpool2d max_unpool3d aten.max_unpool2d aten.max_unpool3d",
    indices=True,
)
_of_kind(LINEAR, "_pack_padded_sequence", function=packing.pack, indices=True)
_of_kind(LINEAR, "_pad_packed_sequence", function=packing.unpack, indices=True)
_of_kind(COMPOSITE, "scatter_reduce", function=scatter.scatter_reduce, indices=True)
_of_kind(COMPOSITE, "index_reduce", function=scatter.index_reduce)
_of_kind(COMPOSITE, "segment_reduce", function=scatter.segment_reduce)
for _name in ("scatter", "scatter_add"):
    _of_kind(LINEAR, _name, function=getattr(scatter, _name), indices=True)
_of_kind(
    CAST,
    "as_tensor to type type_as float double half bfloat16 long int short byte char bool cpu cuda _to_copy",
    broadcastable=True,
    piecewise_constant=True,
)
_of_kind(CAST, "asarray", function=_as_array, broadcastable=True, piecewise_constant=True)
_of_kind(
    RANDOM,
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout gumbel_softmax "
    "rand randn randint randperm normal bernoulli multinomial poisson rand_like randn_like randint_like "
    "uniform exponential cauchy log_normal geometric native_dropout fractional_max_pool2d "
    "fractional_max_pool3d",
)

# ---------------------------------------------------------------------- products
_of_kind(
    MULTILINEAR,
    "rmatmul mm mv dot vdot inner outer kron cross addmm addbmm baddbmm addmv addr addcmul lerp "
    "linear bilinear conv_transpose1d conv_transpose2d conv_transpose3d convolution "
    "conv_tbc einsum tensordot trapezoid cumulative_trapezoid chain_matmul multi_dot vecdot",
)
for _convolution in (torch.conv1d, torch.conv2d, torch.conv3d):
    _of_kind(MULTILINEAR, _convolution.__name__, function=with_fast_backward(_convolution))
_of_kind(MULTILINEAR, "mul", rule=rules.product)
_of_kind(MULTILINEAR, "matmul bmm", rule=rules.matrix_product)
_of_kind(QUADRATIC, "var var_mean mse_loss")

# ---------------------------------------------------------------------- elementwise
for _name, _secant in {
    "tanh": secants.tanh,
    "sigmoid": secants.sigmoid,
    "exp": secants.exp,
    "expm1": secants.expm1,
    "log": secants.log,
    "log1p": secants.log1p,
    "sqrt": secants.sqrt,
    "rsqrt": secants.rsqrt,
    "square": secants.square,
    "reciprocal": secants.reciprocal,
    "relu": secants.relu,
    "tanhshrink": secants.tanhshrink,
}.items():
    _of_kind(ELEMENTWISE, _name, secant=_secant, broadcastable=True)
_of_kind(ELEMENTWISE, "pow", rule=rules.power, broadcastable=True)
_of_kind(ELEMENTWISE, "silu", secant=secants.silu, function=arithmetic.silu, broadcastable=True, finite_everywhere=True)
_of_kind(
    ELEMENTWISE,
    "leaky_relu relu6 elu selu celu mish softplus softsign logsigmoid log_sigmoid hardsigmoid hardswish hardtanh",
    broadcastable=True,
    finite_everywhere=True,
)
_of_kind(
    ELEMENTWISE,
    "hardshrink softshrink threshold clamp clamp_min clamp_max sign floor ceil round trunc "
    "frac exp2 log2 log10 sin cos tan asin acos atan sinh cosh asinh acosh atanh erf erfc erfinv erfcx sinc "
    "lgamma digamma logit rpow float_power remainder fmod heaviside i0 i0e i1 i1e "
    "ndtr ndtri log_ndtr entr xlogy xlog1py maximum minimum fmax fmin atan2 copysign nextafter polygamma mvlgamma "
    "multigammaln",
    broadcastable=True,
)
_of_kind(
    ELEMENTWISE,
    "eq ne lt le gt ge logical_and logical_or logical_xor logical_not "
    "bitwise_and bitwise_or bitwise_xor bitwise_not isnan isinf isfinite isposinf isneginf "
    "signbit isclose bucketize ",
    broadcastable=True,
    piecewise_constant=True,
)

# ---------------------------------------------------------------------- composed of smaller operations
for _name, _function in {
    "split": selection.split,
    "split_with_sizes": selection.split,
    "unsafe_split": selection.split,
    "chunk": selection.chunk,
    "unsafe_chunk": selection.chunk,
    "tensor_split": selection.tensor_split,
    "unbind": selection.unbind,
    "div": arithmetic.div,
    "rdiv": arithmetic.rdiv,
    "floor_divide": arithmetic.floor_divide,
    "rfloor_divide": lambda a, b: arithmetic.floor_divide(b, a),
    "addcdiv": arithmetic.addcdiv,
    "abs": arithmetic.absolute,
    "angle": arithmetic.angle,
    "vander": arithmetic.vander,
    "hypot": arithmetic.hypot,
    "ldexp": arithmetic.ldexp,
    "glu": arithmetic.glu,
    "det": arithmetic.det,
    "inv": algebra.inverse,
    "cholesky": algebra.cholesky,
    "solve": algebra.solve,
    "solve_triangular": algebra.solve_triangular,
    "cholesky_solve": algebra.cholesky_solve,
    "cholesky_inverse": algebra.cholesky_inverse,
    "cholesky_ex": algebra.with_info(algebra.cholesky, torch.linalg.cholesky_ex),
    "inv_ex": algebra.with_info(algebra.inverse, torch.linalg.inv_ex),
    "solve_ex": algebra.with_info(algebra.solve, torch.linalg.solve_ex),
    "triangular_solve": algebra.triangular_solve,
    "lu_solve": algebra.lu_solve,
    "lstsq": algebra.lstsq,
    "pinv": algebra.pinv,
    "logdet": algebra.logdet,
    "slogdet": algebra.slogdet,
    "matrix_exp": algebra.matrix_exp,
    "matrix_power": algebra.matrix_power,
    "sparse.mm": algebra.sparse_mm,
    "sparse.addmm": algebra.sparse_addmm,
    "smm": algebra.sparse_mm,
    "hspmm": algebra.sparse_mm,
    "grouped_mm": algebra.grouped_mm,
    "_grouped_mm": algebra.grouped_mm,
    "polar": arithmetic.polar,
    "new": arithmetic.new,
    "gelu": arithmetic.gelu,
    "nan_to_num": arithmetic.nan_to_num,
    "rremainder": arithmetic.rremainder,
    "prelu": arithmetic.prelu,
    "rrelu": arithmetic.rrelu,
    "full_like": arithmetic.full_like,
    "new_full": arithmetic.new_full,
    "new_tensor": arithmetic.new_tensor,
    "where": selection.where,
    "Tensor.where": lambda input, condition, other: selection.where(condition, input, other),
    "searchsorted": selection.searchsorted,
    "masked_fill": selection.masked_fill,
    "softmax": attention.softmax,
    "log_softmax": attention.log_softmax,
    "softmin": attention.softmin,
    "logsumexp": reductions.logsumexp,
    "logaddexp": reductions.logaddexp,
    "logaddexp2": reductions.logaddexp2,
    "logcumsumexp": reductions.logcumsumexp,
    "max": reductions.maximum_of,
    "min": reductions.minimum_of,
    "amax": reductions.amax,
    "amin": reductions.amin,
    "aminmax": reductions.aminmax,
    "_is_all_true": reductions.all_of,
    "any": reductions.any_of,
    "all": reductions.all_of,
    "count_nonzero": reductions.count_nonzero,
    "max_pool1d": reductions.max_pool(1),
    "max_pool2d": reductions.max_pool(2),
    "max_pool3d": reductions.max_pool(3),
    "adaptive_max_pool1d": reductions.max_pool(1, adaptive=True),
    "adaptive_max_pool2d": reductions.max_pool(2, adaptive=True),
    "adaptive_max_pool3d": reductions.max_pool(3, adaptive=True),
    "lp_pool1d": norms.lp_pool(1),
    "lp_pool2d": norms.lp_pool(2),
    "lp_pool3d": norms.lp_pool(3),
    "argmax": positions.argmax,
    "argmin": positions.argmin,
    "argsort": positions.argsort,
    "sort": reductions.sort,
    "msort": reductions.msort,
    "topk": reductions.topk,
    "kthvalue": reductions.kthvalue,
    "median": reductions.median,
    "nanmedian": reductions.nanmedian,
    "quantile": reductions.quantile,
    "nanquantile": reductions.nanquantile,
    "cumprod": reductions.cumprod,
    "cummax": reductions.cummax,
    "cummin": reductions.cummin,
    "prod": reductions.prod,
    "std": norms.std,
    "std_mean": norms.std_mean,
    "norm": norms.norm,
    "vector_norm": norms.vector_norm,
    "matrix_norm": norms.matrix_norm,
    "normalize": norms.normalize,
    "cosine_similarity": norms.cosine_similarity,
    "pairwise_distance": norms.pairwise_distance,
    "cdist": norms.cdist,
    "dist": norms.dist,
    "renorm": norms.renorm,
    "layer_norm": norms.layer_norm,
    "native_layer_norm": norms.native_layer_norm,
    "rms_norm": norms.rms_norm,
    "group_norm": norms.group_norm,
    "instance_norm": norms.instance_norm,
    "batch_norm": norms.batch_norm,
    "local_response_norm": norms.local_response_norm,
    "l1_loss": losses.l1_loss,
    "smooth_l1_loss": losses.smooth_l1_loss,
    "huber_loss": losses.huber_loss,
    "binary_cross_entropy": losses.pointwise_loss(F.binary_cross_entropy),
    "binary_cross_entropy_with_logits": losses.pointwise_loss(F.binary_cross_entropy_with_logits),
    "kl_div": losses.pointwise_loss(F.kl_div),
    "soft_margin_loss": losses.pointwise_loss(F.soft_margin_loss),
    "cross_entropy": losses.cross_entropy,
    "embedding": selection.embedding,
    "embedding_bag": selection.embedding_bag,
    "one_hot": selection.one_hot,
    "grid_sample": selection.grid_sample,
    "scaled_dot_product_attention": attention.scaled_dot_product_attention,
    "multi_head_attention_forward": attention.multi_head_attention_forward,
}.items():
    _of_kind(COMPOSITE, _name, function=_function)

for _name, _function in arithmetic.FOREACH.items():
    _of_kind(COMPOSITE, _name, function=_function)
for _name, _function in aten.OPERATIONS.items():
    _of_kind(COMPOSITE, f"aten.{_name}", function=_function, indices=_name.startswith("nll_loss"))

for _name, _cell in {
    "lstm": recurrent.LSTM,
    "gru": recurrent.GRU,
    "rnn_tanh": recurrent.TanhRNN,
    "rnn_relu": recurrent.ReluRNN,
}.items():
    _of_kind(COMPOSITE, _name, function=recurrent.layer(_cell), recurrent=True)
    OPERATIONS[f"{_name}_cell"] = recurrent.single_step(_cell, getattr(torch, f"{_name}_cell"))

# ---------------------------------------------------------------------- leaving the floats
_of_kind(
    TO_PYTHON,
    "item tolist __bool__ __float__ __int__ __index__ __complex__ __contains__ numpy __array__ equal allclose "
    "is_nonzero",
)
_of_kind(INDEX, "nonzero argwhere unique unique_consecutive bincount")

"""Which operators are known to multiply no matrices: whatever is neither here nor a product is refused by its name.

PyTorch's own tags say it of element-wise operators and reductions, its schemas of views; the rest is listed.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache

import torch
from torch._ops import OpOverload

from ..errors import InputError
from .factorizations import COUNTS

__all__ = ["count_as_vector_work", "is_declared", "is_vector_work"]

_OPEN = ("aten", "prim", "prims", "profiler", "torchvision")

_VECTOR = frozenset({
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "add_relu", "addr", "affine_grid_generator", "alias", "aminmax", "amp_foreach_non_finite_check_and_unscale",
    "amp_update_scale", "arange", "as_strided", "as_strided_scatter", "assert_async", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "bartlett_window", "batch_norm", "batch_norm_backward_elemt", "batch_norm_backward_reduce",
    "batch_norm_elemt", "batch_norm_gather_stats", "batch_norm_gather_stats_with_counts", "batch_norm_no_update",
    "batch_norm_stats", "batch_norm_update_stats", "batch_norm_with_update", "bernoulli", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "bincount", "binomial", "blackman_window", "block_diag", "bucketize", "cat",
    "cauchy", "channel_shuffle", "chunk_cat", "clone", "coalesce", "coalesced", "col2im", "complex", "conj",
    "constant_pad_nd", "convert_indices_from_coo_to_csr", "convert_indices_from_csr_to_coo", "copy", "copy_from",
    "count_nonzero", "ctc_loss", "cummax", "cummax_helper", "cummaxmin", "cummin", "cummin_helper", "cumprod", "cumsum",
    "dequantize", "detach", "diag_embed", "diagonal", "diagonal_scatter", "dirichlet_grad", "dist",
    "efficientzerotensor", "elu", "embedding", "embedding_bag", "embedding_bag_dense", "embedding_bag_forward_only",
    "embedding_bag_per_sample_weights", "embedding_dense", "embedding_renorm", "empty", "empty_like", "empty_permuted",
    "empty_strided", "expand", "exponential", "eye", "fake_quantize_learnable_per_channel_affine",
    "fake_quantize_learnable_per_tensor_affine", "fake_quantize_per_channel_affine_cachemask",
    "fake_quantize_per_tensor_affine_cachemask", "fake_quantize_per_tensor_affine_cachemask_tensor_qparams", "fft_c2c",
    "fft_c2r", "fft_fftfreq", "fft_r2c", "fft_rfftfreq", "fill", "fill_mem_eff_dropout_mask", "flip", "floor_divide",
    "fractional_max_pool2d", "fractional_max_pool3d", "from_file", "full", "full_like", "functional_assert_async",
    "functional_assert_scalar", "fused_adagrad", "fused_adam", "fused_adamw", "fused_dropout",
    "fused_moving_avg_obs_fq_helper", "fused_rms_norm", "fused_sgd", "gather", "geometric", "glu", "glu_backward_jvp",
    "glu_jvp", "grid_sampler_2d", "grid_sampler_2d_cpu_fallback", "grid_sampler_3d", "hamming_window", "hann_window",
    "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "hash_tensor", "histc", "histogram", "histogramdd_bin_edges",
    "histogramdd_from_bin_cts", "histogramdd_from_bin_tensors", "huber_loss", "ilshift", "im2col", "index", "index_add",
    "index_copy", "index_fill", "index_put", "index_put_impl", "index_reduce", "index_select", "int_repr", "irshift",
    "is_all_true", "is_any_true", "isin", "isneginf", "jagged_to_padded_dense", "kaiser_window", "kthvalue",
    "lazy_clone", "leaky_relu", "lgamma", "lift", "lift_fresh", "linalg_cross", "linspace", "local_scalar_dense",
    "log_normal", "log_sigmoid", "log_softmax", "logcumsumexp", "logspace", "lu_unpack", "make_dep_token",
    "make_per_channel_quantized_tensor", "make_per_tensor_quantized_tensor", "masked_fill", "masked_scale",
    "masked_scatter", "masked_select", "masked_softmax", "max_pool2d", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "max_unpool2d", "max_unpool3d", "median", "mode", "mse_loss", "multi_margin_loss",
    "multilabel_margin_loss", "multinomial", "nanmedian", "narrow", "native_batch_norm", "native_batch_norm_legit",
    "native_batch_norm_legit_no_training", "native_channel_shuffle", "native_dropout", "native_group_norm",
    "native_layer_norm", "native_norm", "neg_view", "new_empty", "new_empty_strided", "new_full", "new_ones",
    "new_zeros", "new_zeros_with_same_feature_meta", "nll_loss", "nll_loss2d", "nms", "nonzero", "nonzero_static",
    "norm", "normal", "ones", "ones_like", "pack_padded_sequence", "padded_dense_to_jagged", "pdist", "permute",
    "pin_memory", "pixel_shuffle", "pixel_unshuffle", "poisson", "polar", "prelu_kernel", "ps_roi_align", "ps_roi_pool",
    "put", "quantize_per_channel", "quantize_per_tensor", "quantize_per_tensor_dynamic", "rand", "rand_like", "randint",
    "randint_like", "randn", "randn_like", "random", "randperm", "range", "record_function_enter_new",
    "record_function_exit", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "renorm", "repeat",
    "repeat_interleave", "replication_pad1d", "replication_pad2d", "replication_pad3d", "reshape", "reshape_alias",
    "resize", "resize_as", "resize_output", "roi_align", "roi_pool", "roll", "rot90", "rrelu_with_noise",
    "safe_softmax", "sample_dirichlet", "scalar_tensor", "scatter", "scatter_add", "scatter_reduce", "searchsorted",
    "segment_reduce", "select", "select_scatter", "set", "slice", "slice_scatter", "smooth_l1_loss", "soft_margin_loss",
    "softmax", "softplus", "softshrink", "sort", "split", "split_with_sizes", "squeeze", "stack", "standard_gamma",
    "standard_gamma_grad", "std_mean", "sum_to_size", "t", "take", "thnn_fused_gru_cell", "thnn_fused_lstm_cell",
    "thnn_fused_lstm_cell_backward_impl", "to", "to_dense", "to_padded_tensor", "topk", "trace",
    "transform_bias_rescale_qkv", "transpose", "tril", "tril_indices", "triu", "triu_indices", "unbind", "unfold",
    "uniform", "unique", "unique2", "unique_consecutive", "unique_dim", "unique_dim_consecutive", "unsafe_index",
    "unsafe_index_put", "unsafe_masked_index", "unsafe_masked_index_put_accumulate", "unsafe_split",
    "unsafe_split_with_sizes", "unsafe_view", "unsqueeze", "upsample_bicubic2d", "upsample_bicubic2d_aa",
    "upsample_bilinear2d", "upsample_bilinear2d_aa", "upsample_lanczos2d_aa", "upsample_linear1d", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_nearest3d", "upsample_nearest_exact1d", "upsample_nearest_exact2d",
    "upsample_nearest_exact3d", "upsample_trilinear3d", "value_selecting_reduction", "values", "var_mean", "view",
    "view_as_complex", "view_as_real", "weight_norm_interface", "where", "zero", "zeros", "zeros_like",
})  # fmt: skip
"""Names without underscores around them, and without what `_STEM` takes off."""

_STEM = re.compile(r"^(_foreach)?_*|(_backward_data|_backward|_forward|_copy|_functional)?_*$")
_TAGS = (torch.Tag.pointwise, torch.Tag.reduction)

_declared: dict[str, None] = {}


def count_as_vector_work(*patterns: str) -> None:
    """Declare operators by name (``"namespace.name"``, ``*`` for any): element-wise work of the bytes that they touch.

    For operators that Weft cannot look into, in a line of the file that defines or uses them. A workload lists those
    that it met as assumed. Products of ATen's stay refused.
    """
    for pattern in patterns:
        if not re.fullmatch(r"[\w*?]+\.[\w*?]+", pattern):
            raise InputError(f"operator {pattern!r} is not of the form namespace.name, as 'mylib.neuron' or 'mylib.*'")
        _declared[pattern] = None


def is_declared(name: str) -> bool:
    """Whether somebody declared an operator to be vector work."""
    return any(fnmatchcase(name, pattern) for pattern in _declared)


@cache
def is_vector_work(func: OpOverload) -> bool:
    """Whether PyTorch's tags, its schema or the list say that an operator multiplies no matrices."""
    namespace, _, name = func._schema.name.partition("::")
    if namespace not in _OPEN:
        return False
    if name.startswith("_foreach_") and "mm" not in name:
        return True
    aliased = [argument.alias_info for argument in func._schema.arguments if argument.alias_info is not None]
    views = any(not alias.is_write for alias in aliased)
    nothing = not aliased and not any("Tensor" in str(result.type) for result in func._schema.returns)
    return views or nothing or _tagged(func) or name in COUNTS or _STEM.sub("", name) in _VECTOR


def _tagged(func: OpOverload) -> bool:
    """Whether any overload has a tag that says so; in-place ones and those of numbers often lack theirs."""
    packet = func.overloadpacket
    plain = getattr(getattr(torch.ops, func.namespace), packet.__name__.rstrip("_"), packet)
    packets = {packet, plain} if hasattr(plain, "overloads") else {packet}
    return any(tag in getattr(one, name).tags for one in packets for name in one.overloads() for tag in _TAGS)

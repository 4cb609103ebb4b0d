"""The table: operator (without overload and in-place underscore) -> rule.

To add an operator, add it to the line of its rule; see docs/operators.md. An operator that is
not here freezes what reaches it, and the report says so.
"""

from prunecli.graph.call import Rule
from prunecli.graph.rules.contraction import (
    addmm,
    attention,
    baddbmm,
    einsum,
    linear,
    matmul,
)
from prunecli.graph.rules.convolution import convolution, convolution_transpose
from prunecli.graph.rules.elementwise import along_dim, elementwise, gated, prelu
from prunecli.graph.rules.indexing import gather, index, index_select, scatter
from prunecli.graph.rules.movement import (
    channel_shuffle,
    concatenate,
    created,
    cut,
    embedding,
    expand,
    move,
    move_as,
    move_pinned,
    pad,
    pixel_shuffle,
    roll,
    stack,
    strided_slice,
    unchanged,
    unlabelled,
)
from prunecli.graph.rules.normalization import channelwise, grouped, trailing
from prunecli.graph.rules.products import (
    addmv,
    bilinear,
    compared,
    distances,
    inner,
    outer,
    tensordot,
)
from prunecli.graph.rules.recurrent import cell, recurrent
from prunecli.graph.rules.reduction import (
    extremum,
    largest,
    norm,
    reduction,
    sampled,
    spatial,
    total,
)
from prunecli.graph.rules.windows import (
    bags,
    columns,
    from_columns,
    to_complex,
    to_real,
    triangle,
    windows,
)

_BY_RULE: tuple[tuple[Rule, str], ...] = (
    (
        elementwise,
        "relu relu6 leaky_relu elu celu selu rrelu gelu silu mish sigmoid tanh hardtanh hardswish "
        "hardsigmoid hardshrink softshrink threshold softplus log_sigmoid abs neg exp "
        "exp2 expm1 log log1p log2 log10 sqrt rsqrt square reciprocal sin cos tan asin acos atan "
        "sinh cosh asinh acosh atanh sinc erf erfc floor ceil round trunc frac sign sgn logit add "
        "sub rsub mul div true_divide divide multiply subtract floor_divide remainder fmod pow "
        "maximum minimum fmax fmin atan2 where lerp addcmul addcdiv clamp clamp_min clamp_max "
        "clip masked_fill eq ne lt le gt ge logical_and logical_or logical_not logical_xor "
        "bitwise_and bitwise_or bitwise_xor bitwise_not __and__ __or__ __xor__ isnan isinf "
        "isfinite nan_to_num copy xlogy hypot logaddexp special_expit special_erf expand_as",
    ),
    (
        unchanged,
        "dropout feature_dropout alpha_dropout feature_alpha_dropout contiguous clone detach "
        "alias to _to_copy type_as lift_fresh_copy zeros_like ones_like "
        "full_like empty_like rand_like randn_like bernoulli detach_copy positive "
        "fill zero",
    ),
    (along_dim, "softmax log_softmax _softmax _log_softmax cumsum cumprod"),
    (gated, "glu"),
    (prelu, "prelu _prelu_kernel"),
    (
        move,
        "view reshape _unsafe_view permute transpose t numpy_T mT mH adjoint squeeze "
        "unsqueeze flatten unflatten pixel_unshuffle movedim moveaxis flip rot90 swapaxes swapdims "
        "repeat_interleave tile ravel",
    ),
    (
        cut,
        "narrow split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk "
        "unsafe_split_with_sizes",
    ),
    (move_as, "view_as reshape_as"),
    (channel_shuffle, "channel_shuffle native_channel_shuffle"),
    (pixel_shuffle, "pixel_shuffle"),
    (move_pinned, "select unbind"),
    (strided_slice, "slice"),
    (windows, "unfold"),
    (roll, "roll"),
    (concatenate, "cat concat concatenate"),
    (stack, "stack"),
    (
        pad,
        "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d",
    ),
    (index, "index"),
    (index_select, "index_select"),
    (gather, "gather take_along_dim"),
    (scatter, "scatter scatter_add scatter_reduce index_add index_copy index_fill"),
    (expand, "expand repeat"),
    (created, "zeros ones full new_zeros new_ones new_full empty new_empty"),
    (embedding, "embedding"),
    (unlabelled, "arange linspace eye scalar_tensor tril_indices triu_indices"),
    (linear, "linear"),
    (addmm, "addmm"),
    (matmul, "matmul mm bmm mv dot"),
    (baddbmm, "baddbmm"),
    (einsum, "einsum"),
    (attention, "scaled_dot_product_attention"),
    (convolution, "conv1d conv2d conv3d"),
    (convolution_transpose, "conv_transpose1d conv_transpose2d conv_transpose3d"),
    (recurrent, "lstm gru rnn_tanh rnn_relu"),
    (cell, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    (channelwise, "batch_norm instance_norm"),
    (trailing, "layer_norm rms_norm"),
    (grouped, "group_norm"),
    (
        reduction,
        "prod argmax argmin all std var std_mean var_mean logsumexp median aminmax",
    ),
    (total, "mean sum nansum count_nonzero any"),
    (norm, "norm linalg_vector_norm"),
    (largest, "amax amin"),
    (extremum, "max min"),
    (
        spatial,
        "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
        "adaptive_max_pool2d adaptive_max_pool3d max_pool2d_with_indices "
        "max_pool3d_with_indices max_pool1d_with_indices upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
        "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
        "upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
        "fractional_max_pool2d",
    ),
    (sampled, "grid_sampler grid_sampler_2d grid_sampler_3d"),
    # Along one axis, which keeps its size: order, running extremes, Fourier transforms.
    (
        reduction,
        "sort argsort topk kthvalue mode cummax cummin fft_fft fft_ifft fft_rfft fft_irfft "
        "fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn "
        "fft_irfftn fft_fftshift fft_ifftshift",
    ),
    (elementwise, "real imag angle conj _conj resolve_conj resolve_neg complex polar"),
    (to_complex, "view_as_complex"),
    (to_real, "view_as_real"),
    (columns, "im2col"),
    (from_columns, "col2im"),
    (triangle, "tril triu"),
    (bags, "embedding_bag"),
    (tensordot, "tensordot"),
    (inner, "inner"),
    (outer, "outer ger"),
    (addmv, "addmv"),
    (bilinear, "bilinear"),
    (distances, "cdist"),
    (compared, "cosine_similarity pairwise_distance"),
)

RULES: dict[str, Rule] = {
    f"aten.{name}": rule for rule, names in _BY_RULE for name in names.split()
}

"""Operators by how they touch memory and what they keep for backward: tables of facts about torch's operators.

Names are `Node.short_op`; operands are named as in the operator's schema. Which tensors autograd keeps is from torch's
tools/autograd/derivatives.yaml (2.13).
"""

from collections.abc import Iterable

from autotp.graph import Node, Operand


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# No bytes move, forward or backward: the result is its operand under another shape or name.
FREE = _names(
    """
    view reshape _unsafe_view view_as reshape_as flatten unflatten transpose permute t numpy_T mT movedim
    swapaxes squeeze unsqueeze ravel swapdims moveaxis adjoint alias detach lift_fresh_copy view_as_real view_as_complex
    """
)
# The forward is a view; the backward writes the gradient of the whole operand (split, slice) or adds it up (expand).
FREE_FORWARD = _names(
    """
    slice select narrow unbind split chunk split_with_sizes tensor_split diagonal expand expand_as broadcast_to
    unfold
    """
)
CREATION = _names(
    """
    zeros ones full empty arange zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty
    rand randn randint rand_like randn_like eye linspace scalar_tensor tril_indices triu_indices
    """
)
# Only rows that are picked are read; the backward fills a whole gradient with zeros and adds those rows.
LOOKUPS = frozenset(["embedding", "index_select", "gather", "index"])
# The gradient of the result is that of the operand, unless broadcasting must be undone.
PASSES_GRADIENT = frozenset(["add", "sub"])
# A compiler fuses the pointwise operators before them; those in NORMALISING also the ones after them.
NORMALISING = _names("softmax _softmax log_softmax _log_softmax layer_norm rms_norm")
REDUCTIONS = NORMALISING | _names("mean sum amax amin var var_mean logsumexp linalg_vector_norm")
ATTENTION = frozenset(["scaled_dot_product_attention"])

# Operators with the product rule: a factor is kept if any other factor needs a gradient.
FACTORS: dict[str, tuple[str, ...]] = {
    "linear": ("input", "weight"),
    "matmul": ("self", "other"),
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "mv": ("self", "vec"),
    "dot": ("self", "tensor"),
    "outer": ("self", "vec2"),
    "ger": ("self", "vec2"),
    "addmm": ("mat1", "mat2"),
    "addbmm": ("batch1", "batch2"),
    "baddbmm": ("batch1", "batch2"),
    "einsum": ("tensors",),
    **{f"{name}{dims}d": ("input", "weight") for name in ("conv", "conv_transpose") for dims in (1, 2, 3)},
    "convolution": ("input", "weight"),
    "mul": ("self", "other"),
    "multiply": ("self", "other"),
}
PRODUCTS = frozenset(FACTORS) - {"mul", "multiply"}  # one matrix product backward for every factor with a gradient

# What autograd keeps: schema names of operands, `result`, `result1` for the second result.
KEPT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        _names(
            """
            add sub rsub neg negative sum nansum mean cat concat concatenate stack tile pad constant_pad_nd clone
            contiguous repeat repeat_interleave roll flip cumsum to _to_copy type_as float half copy fill tril triu
            sum_to_size floor ceil round trunc sign bitwise_not logical_not one_hot
            """
        ),
        (),
    ),
    **dict.fromkeys(
        _names(
            """
            softmax _softmax log_softmax _log_softmax tanh sigmoid exp expm1 rsqrt sqrt reciprocal relu tan
            """
        ),
        ("result",),
    ),
    **dict.fromkeys(
        _names(
            """
            gelu silu pow abs cos sin log log1p log2 log10 erf clamp clamp_min clamp_max softplus hardtanh leaky_relu
            mish hardswish hardsigmoid hardshrink softshrink square relu6 logsigmoid log_sigmoid var std avg_pool1d
            avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d glu upsample_nearest2d
            """
        ),
        ("self",),
    ),
    "elu": ("self",),
    "var_mean": ("self",),
    "amax": ("self", "result"),
    "amin": ("self", "result"),
    "norm": ("self", "result"),
    "linalg_vector_norm": ("self", "result"),
    "logsumexp": ("self", "result"),
    "prod": ("self", "result"),
    "maximum": ("self", "other"),
    "minimum": ("self", "other"),
    "atan2": ("self", "other"),
    "lerp": ("weight",),
    "where": ("condition",),
    "masked_fill": ("mask",),
    "masked_scatter": ("mask",),
    "topk": ("result1",),
    "sort": ("result1",),
    "embedding": ("indices",),
    "index_select": ("index",),
    "gather": ("self", "index"),
    "index": ("indices",),
    "index_add": ("index",),
    "index_copy": ("index",),
    "index_put": ("indices",),
    "scatter": ("index",),
    "scatter_add": ("index",),
    "layer_norm": ("input", "weight", "bias"),
    "rms_norm": ("input", "weight"),
    "group_norm": ("input", "weight"),
    "batch_norm": ("input", "weight"),
    "instance_norm": ("input", "weight"),
    "dropout": (),
    "scaled_dot_product_attention": ("query", "key", "value", "attn_mask", "result"),
    "cross_entropy_loss": ("target", "weight"),
    "nll_loss": ("self", "target", "weight"),
    "nll_loss_nd": ("self", "target", "weight"),
    "max_pool1d": ("self",),
    "max_pool2d": ("self",),
    "max_pool3d": ("self",),
}


def named_operands(node: Node, names: Iterable[str]) -> list[int]:
    """Positions in `node.inputs` of the arguments with these schema names; absent ones are skipped."""
    found: list[int] = []
    for name in names:
        value = node.argument(name)
        values = value if isinstance(value, tuple) else (value,)
        found += [item.index for item in values if isinstance(item, Operand)]
    return found


def is_identity(node: Node) -> bool:
    """Whether a dropout drops nothing."""
    return node.short_op == "dropout" and (node.argument("p", 0.5) == 0 or not node.argument("train", True))

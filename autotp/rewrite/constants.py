"""What local operators are built from."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from autotp.graph import TensorSpec
from autotp.rewrite.share import Share
from autotp.rules.call import Call

Constants = tuple[Mapping[str, Any], tuple[int, ...]]


def _seeded(share: Share) -> Constants:
    """Draws differ between ranks exactly where an axis cuts the operator."""
    cut = [c for choice, c in zip(share.strategy.choices, share.coordinates, strict=True) if choice.kind == "cut"]
    return {"op": share.node.op, "name": share.node.name, "coordinates": tuple(cut)}, ()


def _empty(share: Share) -> Constants:
    dtypes = tuple(spec.dtype for spec in share.node.outputs)
    return {"shapes": share.results, "dtypes": dtypes, "op": share.node.op}, ()


def _embedding(share: Share) -> Constants:
    return {"held": share.held("v")}, ()


def _embedding_bag(share: Share) -> Constants:
    return {"op": share.node.op, "held": share.held("v"), "num_rows": share.extent("v")}, ()


def _grouped_mm(share: Share) -> Constants:
    return {"op": share.node.op, "held": share.held("g")}, ()


def _shared_heads(share: Share) -> Constants:
    """Which key head every query head of this rank reads."""
    group = share.extent("g")
    held = [head for start, length in share.held("h*g") for head in range(start, start + length)]
    return {"key_heads": tuple(head // group for head in held)}, ()


def _seeded_shared_heads(share: Share) -> Constants:
    return {**_seeded(share)[0], **_shared_heads(share)[0]}, ()


def _mean(share: Share) -> Constants:
    return {"count": math.prod(map(share.extent, share.rule.summed))}, ()


def _mean_loss(share: Share) -> Constants:
    return {"op": share.node.op, "count": math.prod(map(share.extent, share.rule.summed))}, ()


def _tokens(share: Share) -> tuple[str, ...]:
    return tuple(sorted(share.rule.summed))


def _nll_loss(share: Share) -> Constants:
    axes = share.axes_of(_tokens(share))
    return {"op": share.node.op, "token_axes": axes}, axes


def _cross_entropy(share: Share) -> Constants:
    tokens = share.axes_of(_tokens(share))
    classes = share.axes_of(("c",))
    constants = {
        "held": share.held("c"),
        "num_classes": share.extent("c"),
        "class_axes": classes,
        "token_axes": tokens,
        "num_tokens": math.prod(share.extent(letter) for letter in _tokens(share)),
    }
    return constants, tuple(sorted({*tokens, *classes}))


def _batch_norm(share: Share) -> Constants:
    letters = [letter for letter in share.rule.extents if letter in share.rule.local]
    axes = share.axes_of(letters)
    return {"count": math.prod(map(share.extent, letters)), "axes": axes}, axes


def _reduction(share: Share) -> Constants:
    node, num_dims = share.node, len(share.rule.operands[0])
    dims = Call(node, (TensorSpec((1,) * num_dims, "float32", False),)).dims()
    axes = share.axes_of([f"d{dim}" for dim in dims])
    return {"op": node.op, "dims": dims, "axes": axes, "keepdim": bool(node.argument("keepdim"))}, axes


def _place(share: Share) -> Constants:
    constants, axes = _reduction(share)
    letter = f"d{constants['dims'][0]}"
    return {**constants, "held": share.held(letter), "extent": share.extent(letter)}, axes


def _moments(share: Share) -> Constants:
    constants, axes = _reduction(share)
    node, count = share.node, math.prod(share.extent(f"d{dim}") for dim in constants["dims"])
    given = node.argument("correction")
    correction = given if given is not None else float(node.argument("unbiased") is not False)
    return {**constants, "count": count, "correction": float(correction)}, axes


LOCAL: dict[str, Callable[[Share], Constants]] = {
    "seeded": _seeded,
    "empty": _empty,
    "shared_heads": _shared_heads,
    "seeded_shared_heads": _seeded_shared_heads,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
    "grouped_mm": _grouped_mm,
    "mean": _mean,
    "mean_loss": _mean_loss,
    "ctc_mean": _mean_loss,
    "nll_loss": _nll_loss,
    "cross_entropy": _cross_entropy,
    "batch_norm": _batch_norm,
    "extreme": _reduction,
    "place": _place,
    "moments": _moments,
    "norm": _reduction,
    "logsumexp": _reduction,
}

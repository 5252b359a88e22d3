"""Operators that return what they were given are taken out: they cost nothing, and hide what is one tensor."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

ALWAYS = frozenset({"alias", "lift", "lift_fresh", "lift_fresh_copy"})
CASTS = frozenset({"to", "type_as"})
RESHAPES = frozenset(
    {"view", "reshape", "expand", "expand_as", "view_as", "broadcast_to", "_unsafe_view", "slice", "flatten"}
)
DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})


def remove_noops(graph: fx.Graph, gradient: set[fx.Node]) -> None:
    """Replace every operator that does nothing by its operand. `gradient`: nodes that a gradient flows through."""
    for node in list(graph.nodes):
        if node.op == "call_function" and (source := _same_as(node, gradient)) is not None:
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def _same_as(node: fx.Node, gradient: set[fx.Node]) -> fx.Node | None:
    if node.target is operator.getitem:
        return _broadcast(node)
    if not isinstance(node.target, torch._ops.OpOverload) or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    source = node.args[0]
    name = node.target.overloadpacket.__name__
    if node.target.namespace != "aten" or not isinstance(source.meta.get("val"), Tensor):
        return None
    is_same = (
        name in ALWAYS
        or (name in CASTS and _is_same_tensor(node, source) and not _argument(node, "copy", False))
        or (name in RESHAPES and _is_same_tensor(node, source))
        or (name in DROPOUTS and (not _argument(node, "train", False) or _argument(node, "p", 0.0) == 0.0))
        or (name == "detach" and source not in gradient)
    )
    return source if is_same else None


def _is_same_tensor(node: fx.Node, source: fx.Node) -> bool:
    a, b = node.meta["val"], source.meta["val"]
    return bool(a.dtype == b.dtype and a.device == b.device and a.shape == b.shape)


def _argument(node: fx.Node, name: str, default: Any) -> Any:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    index = names.index(name) if name in names else len(node.args)
    return node.args[index] if index < len(node.args) else node.kwargs.get(name, default)


def _broadcast(node: fx.Node) -> fx.Node | None:
    """The operand of `broadcast_tensors` that has the common shape already."""
    pieces, index = node.args
    if not isinstance(pieces, fx.Node) or pieces.target is not torch.ops.aten.broadcast_tensors.default:
        return None
    operands = pieces.args[0]
    assert isinstance(operands, Sequence) and isinstance(index, int)
    source = operands[index]
    return source if isinstance(source, fx.Node) and _is_same_tensor(node, source) else None

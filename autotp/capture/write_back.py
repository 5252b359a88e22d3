"""A write into a view, as a new value of the tensor that the view belongs to."""

import operator
from typing import Any

import torch
from torch import fx

from autotp.capture.gradients import tensors_in
from autotp.capture.plain import describe
from autotp.errors import CaptureError

aten = torch.ops.aten
RESHAPES = frozenset({
    "view", "view_as", "reshape", "reshape_as", "unsqueeze", "squeeze", "flatten", "unflatten", "_unsafe_view",
})  # fmt: skip
SAME = frozenset({"alias", "to", "contiguous", "type_as", "dropout", "expand", "detach"})  # where the shape is the same
PIECES = frozenset({"chunk", "split", "split_with_sizes", "unbind"})


def new_node(graph: fx.Graph, like: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A new node with the origin of `like` and a value of its own."""
    node = graph.call_function(target, args, kwargs)
    values = fx.map_arg((args, kwargs), lambda n: n.meta["val"])
    tensors = (t for n in node.all_input_nodes for t in tensors_in(n.meta["val"]))
    mode = next((t.fake_mode for t in tensors), None)  # type: ignore[attr-defined]
    with torch.no_grad(), mode or torch.no_grad():
        value = target(*values[0], **values[1])
    node.meta = {**like.meta, "val": value}
    return node


def with_view(graph: fx.Graph, view: fx.Node, whole: fx.Node, new: fx.Node) -> fx.Node:
    """`whole` with the elements that `view`, made of it by one operator, shows replaced by `new`.

    Raises CaptureError where the operator has no inverse.
    """
    name = view.target.overloadpacket.__name__ if isinstance(view.target, torch._ops.OpOverload) else str(view.target)
    rest, kwargs = view.args[1:], view.kwargs
    shape = list(whole.meta["val"].shape)
    is_same_shape = list(view.meta["val"].shape) == shape
    if name in RESHAPES and view.meta["val"].numel() == whole.meta["val"].numel():
        return new_node(graph, view, aten.reshape.default, new, shape)
    if name in ("transpose", "swapaxes"):
        return new_node(graph, view, aten.transpose.int, new, *rest)
    if name in ("t", "numpy_T", "mT") and len(shape) > 1:
        backwards = list(reversed(range(len(shape))))
        order = backwards if name == "numpy_T" else [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        return new_node(graph, view, aten.permute.default, new, order)
    if name == "movedim":
        return new_node(graph, view, view.target, new, rest[1], rest[0])
    if name == "permute":
        order = [dim % len(shape) for dim in rest[0]]  # type: ignore[union-attr, operator]
        return new_node(graph, view, aten.permute.default, new, [order.index(i) for i in range(len(order))])
    if name == "slice":
        return new_node(graph, view, aten.slice_scatter.default, whole, new, *rest, **kwargs)
    if name == "narrow":
        dim, start, length = rest
        return new_node(graph, view, aten.slice_scatter.default, whole, new, dim, start, start + length)  # type: ignore[operator]
    if name == "select":
        return new_node(graph, view, aten.select_scatter.default, whole, new, *rest, **kwargs)
    if is_same_shape and (name in SAME or view.target._schema.is_mutable):  # type: ignore[union-attr]
        return new
    raise CaptureError(
        f"{describe(view)}: a write into the result of {view.target}, a view, cannot be captured; write to a new tensor"
    )


def with_piece(graph: fx.Graph, piece: fx.Node, pieces: fx.Node, whole: fx.Node, new: fx.Node) -> fx.Node:
    """`whole` with one of its `pieces` (chunk, split, unbind) replaced by `new`. Raises CaptureError for other lists."""
    name = pieces.target.overloadpacket.__name__ if isinstance(pieces.target, torch._ops.OpOverload) else ""
    index = piece.args[1]
    if piece.target is not operator.getitem or name not in PIECES or not isinstance(index, int):
        raise CaptureError(
            f"{describe(piece)}: a write into a result of {pieces.target} cannot be captured; write to a new tensor"
        )
    position = 1 if name == "unbind" else 2
    dim = pieces.args[position] if len(pieces.args) > position else pieces.kwargs.get("dim", 0)
    assert isinstance(dim, int)
    if name == "unbind":
        return new_node(graph, piece, aten.select_scatter.default, whole, new, dim, index)
    sizes = [tensor.shape[dim] for tensor in tensors_in(pieces.meta["val"])]
    start = sum(sizes[:index])
    return new_node(graph, piece, aten.slice_scatter.default, whole, new, dim, start, start + sizes[index])

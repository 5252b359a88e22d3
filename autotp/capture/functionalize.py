"""In-place operators on activations become out-of-place ones, and whoever reads the tensor later reads the new one.

A write into a view is carried back to the tensor that the view belongs to (a slice by `slice_scatter`, a transpose by
its inverse), and every other view of it that is still read is made again. Writes to buffers stay: they are state.
"""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from autotp.capture.gradients import tensors_in
from autotp.capture.plain import describe
from autotp.errors import CaptureError

aten = torch.ops.aten
REFUSED = frozenset({"set_", "resize_", "resize_as_", "squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_"})


def functionalize(graph: fx.Graph) -> None:
    """Replace every in-place operator on an activation. Raises CaptureError where a write cannot be carried back."""
    for node in list(graph.nodes):
        if node.op == "call_function" and _writes(node):
            _replace(graph, node)


def _writes(node: fx.Node) -> bool:
    """Whether the operator changes an activation in place. Writes to buffers are none of ours."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return False
    written = [node.args[i] if i < len(node.args) else node.kwargs.get(a.name) for i, a in enumerate(schema.arguments)
               if a.alias_info is not None and a.alias_info.is_write]  # fmt: skip
    changed = [value for value in written if isinstance(value, fx.Node) and _root(value).op != "get_attr"]
    if not changed:
        return False
    name = node.target.overloadpacket.__name__  # type: ignore[union-attr]
    if len(written) != 1 or written[0] is not node.args[0] or not name.endswith("_") or name in REFUSED:
        raise CaptureError(
            f"{describe(node)}: {node.target} writes to its operands; use the form that returns a new tensor"
        )
    return True


def _replace(graph: fx.Graph, node: fx.Node) -> None:
    base = node.args[0]
    assert isinstance(base, fx.Node)
    with graph.inserting_before(node):
        value = _out_of_place(graph, node)
    later = list(_after(node))
    replaced = {base: value, node: value}
    if node.target is not aten.detach_.default:  # which changes no elements, so views of the tensor stay as they are
        views = [n for n in graph.nodes if n not in replaced and _root(n) is _root(base) and _read_in(n, later)]
        if any(view not in later for view in views):
            with graph.inserting_before(node):
                _carry_back(graph, base, replaced)
                for view in views:
                    if view not in later:
                        _again(graph, view, replaced)
    for old, new in replaced.items():
        for reader in later:
            reader.replace_input_with(old, new)
    graph.erase_node(node)


def _out_of_place(graph: fx.Graph, node: fx.Node) -> fx.Node:
    base, *rest = node.args
    assert isinstance(base, fx.Node)
    old = base.meta["val"]
    if node.target is aten.copy_.default:
        source = rest[0]
        assert isinstance(source, fx.Node)
        if source.meta["val"].dtype != old.dtype:
            source = _call(graph, node, aten.to.dtype, source, old.dtype)
        if source.meta["val"].shape != old.shape:
            source = _call(graph, node, aten.expand.default, source, list(old.shape))
        return source
    packet, overload = node.target.overloadpacket.__name__, node.target._overloadname  # type: ignore[union-attr]
    library = getattr(torch.ops, node.target.namespace)  # type: ignore[union-attr]
    name = packet[:-1] if not packet.startswith("__i") else "__" + packet[3:]
    functional = getattr(getattr(library, name, None), overload, None)
    if functional is None:
        raise CaptureError(f"{describe(node)}: {node.target} has no form that returns a new tensor")
    value = _call(graph, node, functional, base, *rest, **node.kwargs)
    if value.meta["val"].dtype != old.dtype:
        value = _call(graph, node, aten.to.dtype, value, old.dtype)
    return value


def _call(graph: fx.Graph, like: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A new node with the origin of `like` and a value of its own."""
    node = graph.call_function(target, args, kwargs)
    fakes = fx.map_arg((args, kwargs), lambda n: n.meta["val"])
    mode = next(
        (
            t.fake_mode  # type: ignore[attr-defined]
            for n in node.all_input_nodes
            for t in tensors_in(n.meta["val"])
        ),
        None,
    )
    with torch.no_grad(), mode or torch.no_grad():
        value = target(*fakes[0], **fakes[1])
    node.meta = {**like.meta, "val": value}
    return node


# ---------------------------------------------------------------- views


def _parent(node: fx.Node) -> fx.Node | None:
    """The node of whose elements this one is a view: an operand in the same storage."""
    if node.op != "call_function" or node.target in (aten.lift_fresh_copy.default,):
        return None  # a copy of a constant: fake tensors share the storage, real ones do not
    mine = {t.untyped_storage()._cdata for t in tensors_in(node.meta.get("val"))}
    if node.target is operator.getitem and _parent(node.all_input_nodes[0]) is None:
        return None  # a result of its own, of topk for example, and no piece of a view
    for source in node.all_input_nodes:
        if mine & {t.untyped_storage()._cdata for t in tensors_in(source.meta.get("val"))}:
            return source
    return None


def _root(node: fx.Node) -> fx.Node:
    while (parent := _parent(node)) is not None:
        node = parent
    return node


def _after(node: fx.Node) -> Iterator[fx.Node]:
    node = node.next
    while node.op != "root":
        yield node
        node = node.next


def _read_in(node: fx.Node, readers: list[fx.Node]) -> bool:
    return any(user in readers for user in node.users)


def _carry_back(graph: fx.Graph, base: fx.Node, replaced: dict[fx.Node, fx.Node]) -> None:
    """Give every tensor that `base` is a view of its new value, up to the one that is no view."""
    while (parent := _parent(base)) is not None:
        if isinstance(parent.meta["val"], Tensor):
            replaced[parent] = _inverse(graph, base, parent, replaced[base])
            base = parent
        else:  # a piece of a list of views: chunk, split, unbind
            whole = _parent(parent)
            assert whole is not None
            replaced[whole] = _put_piece(graph, base, parent, whole, replaced[base])
            base = whole


def _inverse(graph: fx.Graph, view: fx.Node, whole: fx.Node, new: fx.Node) -> fx.Node:
    """`whole` with the elements that `view` shows replaced by `new`."""
    name = view.target.overloadpacket.__name__ if isinstance(view.target, torch._ops.OpOverload) else str(view.target)
    rest, kwargs = view.args[1:], view.kwargs
    shape = list(whole.meta["val"].shape)
    if view.meta["val"].numel() == whole.meta["val"].numel() and name in (
        "view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "_unsafe_view",
    ):  # fmt: skip
        return _call(graph, view, aten.reshape.default, new, shape)
    if name in ("transpose", "t", "numpy_T", "swapaxes"):
        dims = rest or (0, 1)
        if len(shape) == 2 or name == "transpose":
            return _call(graph, view, aten.transpose.int, new, *dims) if len(shape) > 1 else new
    if name == "permute":
        order = [dim % len(shape) for dim in rest[0]]  # type: ignore[union-attr, operator]
        return _call(graph, view, aten.permute.default, new, [order.index(i) for i in range(len(order))])
    if name == "slice":
        return _call(graph, view, aten.slice_scatter.default, whole, new, *rest, **kwargs)
    if name == "select":
        return _call(graph, view, aten.select_scatter.default, whole, new, *rest, **kwargs)
    if (
        name in ("alias", "to", "contiguous", "type_as", "dropout", "expand")
        and view.meta["val"].shape == whole.meta["val"].shape
    ):
        return new
    if _writes_schema(view):  # the result of an earlier write that was kept
        return new
    raise CaptureError(
        f"{describe(view)}: a write into the result of {view.target}, a view, cannot be captured; write to a new tensor"
    )


def _writes_schema(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _put_piece(graph: fx.Graph, piece: fx.Node, pieces: fx.Node, whole: fx.Node, new: fx.Node) -> fx.Node:
    name = pieces.target.overloadpacket.__name__ if isinstance(pieces.target, torch._ops.OpOverload) else ""
    index = piece.args[1]
    if piece.target is not operator.getitem or name not in ("chunk", "split", "split_with_sizes", "unbind"):
        raise CaptureError(
            f"{describe(piece)}: a write into a result of {pieces.target} cannot be captured; write to a new tensor"
        )
    assert isinstance(index, int)
    rank = whole.meta["val"].dim()
    position = {"unbind": 1}.get(name, 2)
    dim = pieces.args[position] if len(pieces.args) > position else pieces.kwargs.get("dim", 0)
    assert isinstance(dim, int)
    if name == "unbind":
        return _call(graph, piece, aten.select_scatter.default, whole, new, dim, index)
    sizes = [t.shape[dim % rank] for t in pieces.meta["val"]]
    start = sum(sizes[:index])
    return _call(graph, piece, aten.slice_scatter.default, whole, new, dim, start, start + sizes[index])


def _again(graph: fx.Graph, view: fx.Node, replaced: dict[fx.Node, fx.Node]) -> fx.Node:
    """The same view of the new value."""
    if view not in replaced:
        parent = _parent(view)
        assert parent is not None
        source = _again(graph, parent, replaced)
        replaced[view] = graph.node_copy(view, lambda n: source if n is parent else n)
        replaced[view].meta = dict(view.meta)
    return replaced[view]

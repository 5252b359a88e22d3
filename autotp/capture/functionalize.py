"""In-place operators on activations become out-of-place ones, and whoever reads the tensor later reads the new one.

A write into a view is carried back to the tensor that the view belongs to (a slice by `slice_scatter`, a transpose by
its inverse), and every view of it that is still read is made again. Writes to buffers stay: they are state.
"""

import operator

import torch
from torch import Tensor, fx

from autotp.capture.gradients import tensors_in
from autotp.capture.plain import describe
from autotp.capture.write_back import new_node, with_piece, with_view
from autotp.errors import CaptureError

aten = torch.ops.aten
REFUSED = frozenset({"set_", "resize_", "resize_as_", "squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_"})
# In-place operators whose other form is not found by dropping the underscore.
FUNCTIONAL: dict[object, torch._ops.OpOverload] = {
    aten.bernoulli_.float: aten.bernoulli.p,
    aten.normal_.default: aten.normal_functional.default,
    aten.floor_divide_.Tensor: aten.floor_divide.default,
    aten.pow_.Tensor: aten.pow.Tensor_Tensor,
    aten.pow_.Scalar: aten.pow.Tensor_Scalar,  # pow.Scalar is a number to the power of a tensor
    aten.float_power_.Tensor: aten.float_power.Tensor_Tensor,
    aten.float_power_.Scalar: aten.float_power.Tensor_Scalar,
}


def functionalize(graph: fx.Graph) -> None:
    """Replace every in-place operator on an activation. Raises CaptureError where a write cannot be carried back."""
    views = Views(graph)
    for node in list(graph.nodes):
        if node.op == "call_function" and _writes(node, views):
            _replace(graph, node, views)


class Views:
    """Which node shows elements of which: those that share a storage. A tensor's new value takes over its storage."""

    def __init__(self, graph: fx.Graph) -> None:
        self._storages = {node: _storages(node) for node in graph.nodes}
        self._own: set[fx.Node] = set()  # new values, which are no views although they share the storage

    def parent(self, node: fx.Node) -> fx.Node | None:
        """The node of whose elements this one is a view: an operand in the same storage."""
        if node.op != "call_function" or node in self._own or node.target is aten.lift_fresh_copy.default:
            return None  # lift_fresh_copy copies a constant: fake tensors share the storage, real ones do not
        if node.target is operator.getitem and self.parent(node.all_input_nodes[0]) is None:
            return None  # a result of its own, of topk for example, and no piece of a view
        mine = self._of(node)
        return next((source for source in node.all_input_nodes if mine & self._of(source)), None)

    def root(self, node: fx.Node) -> fx.Node:
        while (parent := self.parent(node)) is not None:
            node = parent
        return node

    def is_view(self, node: fx.Node, root: fx.Node) -> bool:
        """Whether the node, not the tensor itself, shows elements of the tensor `root`."""
        return node is not root and bool(self._of(node) & self._of(root)) and self.root(node) is root

    def succeed(self, old: fx.Node, new: fx.Node) -> None:
        """`new` is the value of `old` from now on."""
        self._storages[new] = self._of(old)
        self._own.add(new)

    def _of(self, node: fx.Node) -> frozenset[int]:
        return self._storages.setdefault(node, _storages(node))


def _storages(node: fx.Node) -> frozenset[int]:
    return frozenset(tensor.untyped_storage()._cdata for tensor in tensors_in(node.meta.get("val")))


def _writes(node: fx.Node, views: Views) -> bool:
    """Whether the operator changes an activation in place. Writes to buffers are none of ours."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return False
    written = [node.args[i] if i < len(node.args) else node.kwargs.get(a.name) for i, a in enumerate(schema.arguments)
               if a.alias_info is not None and a.alias_info.is_write]  # fmt: skip
    changed = [value for value in written if isinstance(value, fx.Node) and views.root(value).op != "get_attr"]
    if not changed:
        return False
    name = node.target.overloadpacket.__name__  # type: ignore[union-attr]
    if len(written) != 1 or written[0] is not node.args[0] or not name.endswith("_") or name in REFUSED:
        raise CaptureError(
            f"{describe(node)}: {node.target} writes to its operands; use the form that returns a new tensor"
        )
    return True


def _replace(graph: fx.Graph, node: fx.Node, views: Views) -> None:
    base = node.args[0]
    assert isinstance(base, fx.Node)
    later = _after(node)
    with graph.inserting_before(node):
        value = _out_of_place(graph, node)
        if node.target is aten.detach_.default:  # which changes no elements: other views stay as they are
            replaced = {base: value, node: value}
        else:
            root = views.root(base)
            shown = [n for n in graph.nodes if n not in later and _read_in(n, later) and views.is_view(n, root)]
            replaced = {root: _carried_back(graph, base, value, views)}
            views.succeed(root, replaced[root])
            for view in shown:
                if view is node:  # the operator's result is what it wrote to
                    replaced[node] = _made_again(graph, base, replaced, views)
                else:
                    _made_again(graph, view, replaced, views)
    for old, new in replaced.items():
        for reader in later:
            reader.replace_input_with(old, new)
    graph.erase_node(node)


def _out_of_place(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """The value that the operator writes, as a node of its own."""
    base, *rest = node.args
    assert isinstance(base, fx.Node)
    old = base.meta["val"]
    if node.target is aten.copy_.default:
        source = rest[0]
        assert isinstance(source, fx.Node)
        if source.meta["val"].dtype != old.dtype:
            source = new_node(graph, node, aten.to.dtype, source, old.dtype)
        # A node of its own even where nothing changes: writes to the one must not show in the other.
        return new_node(graph, node, aten.expand.default, source, list(old.shape))
    packet, overload = node.target.overloadpacket.__name__, node.target._overloadname  # type: ignore[union-attr]
    library = getattr(torch.ops, node.target.namespace)  # type: ignore[union-attr]
    name = packet[:-1] if not packet.startswith("__i") else "__" + packet[3:]
    functional = FUNCTIONAL.get(node.target) or getattr(getattr(library, name, None), overload, None)
    if functional is None:
        raise CaptureError(f"{describe(node)}: {node.target} has no form that returns a new tensor")
    value = new_node(graph, node, functional, base, *rest, **node.kwargs)
    if value.meta["val"].dtype != old.dtype:
        value = new_node(graph, node, aten.to.dtype, value, old.dtype)
    return value


def _carried_back(graph: fx.Graph, base: fx.Node, value: fx.Node, views: Views) -> fx.Node:
    """The new value of the tensor that `base`, whose new value is given, is a view of."""
    while (parent := views.parent(base)) is not None:
        if not isinstance(parent.meta["val"], Tensor):  # a list of views
            whole = views.parent(parent)
            assert whole is not None
            base, value = whole, with_piece(graph, base, parent, whole, value)
        else:
            base, value = parent, with_view(graph, base, parent, value)
    return value


def _made_again(graph: fx.Graph, view: fx.Node, replaced: dict[fx.Node, fx.Node], views: Views) -> fx.Node:
    """The same view of the new value."""
    if view not in replaced:
        parent = views.parent(view)
        assert parent is not None
        source = _made_again(graph, parent, replaced, views)
        replaced[view] = graph.node_copy(view, lambda n: source if n is parent else n)
        replaced[view].meta = dict(view.meta)
    return replaced[view]


def _after(node: fx.Node) -> set[fx.Node]:
    found = set()
    while (node := node.next).op != "root":
        found.add(node)
    return found


def _read_in(node: fx.Node, readers: set[fx.Node]) -> bool:
    return any(user in readers for user in node.users)

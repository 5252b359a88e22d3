"""An exported program becomes a plain FX graph: flat tensors in, flat tensors out, weights under their own names.

Export's checks are dropped, regions without gradient are inlined, a weight that has several names becomes one node, and
inputs that are no tensors, fixed by the capture, become literals.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from autotp.capture.autocast import casts_of
from autotp.capture.gradients import gives_gradient, tensors_in
from autotp.errors import CaptureError

# What helps against operators that take functions.
HIGHER_ORDER = {
    "cond": "compute both branches, and choose by torch.where",
    "while_loop": "loop a fixed number of times",
    "flex_attention": "use torch.nn.functional.scaled_dot_product_attention",
}
DROPPED = frozenset({"_assert_tensor_metadata", "_guards_fn", "_assert_async"})


class Weights:
    """A model's parameters and buffers by name, and the first name of those that are one object."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self.buffers: dict[str, Tensor] = dict(model.named_buffers(remove_duplicate=False))
        self._names: dict[int, tuple[str, ...]] = {}
        for name, tensor in self.all.items():
            self._names[id(tensor)] = (*self._names.get(id(tensor), ()), name)

    @property
    def all(self) -> dict[str, Tensor]:
        return {**self.parameters, **self.buffers}

    def names(self, name: str) -> tuple[str, ...]:
        """Every name of the tensor called so; the first one is the one nodes use."""
        tensor = self.all.get(name)
        return (name,) if tensor is None else self._names[id(tensor)]


def plain_graph(program: ExportedProgram, weights: Weights, is_training: bool) -> tuple[fx.Graph, dict[str, Tensor]]:
    """The graph of a program, and the constants that it reads besides the model's weights, by their target."""
    return _Builder(program, weights, is_training).build()


class _Builder:
    def __init__(self, program: ExportedProgram, weights: Weights, is_training: bool) -> None:
        self.program, self.weights, self.is_training = program, weights, is_training
        self.graph = fx.Graph()
        self.env: dict[fx.Node, Any] = {}
        self.gradient: set[fx.Node] = set()
        self.constants: dict[str, Tensor] = {}
        self.autocast: tuple[str, torch.dtype] | None = None  # (device type, dtype) of the region that is copied

    def build(self) -> tuple[fx.Graph, dict[str, Tensor]]:
        nodes = list(self.program.graph.nodes)
        specs = self.program.graph_signature.input_specs
        places = [node for node in nodes if node.op == "placeholder"]
        attributes: dict[str, list[fx.Node]] = {}
        all_weights = self.weights.all
        for node, spec in zip(places, specs, strict=True):
            value = node.meta.get("val")
            if spec.kind is InputKind.USER_INPUT and isinstance(value, Tensor):
                self.env[node] = self.graph.placeholder(node.name)
                self.env[node].meta = _kept_meta(node)
            elif spec.kind is InputKind.USER_INPUT:
                self.env[node] = value
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR) and spec.target:
                target = self.weights.names(spec.target)[0]
                attributes.setdefault(target, []).append(node)
                if target not in all_weights:
                    self.constants[target] = self.program.constants[target]
            else:
                raise CaptureError(f"the model reads {spec.target}, a {spec.kind.name}: only tensors can be captured")
        order = {name: index for index, name in enumerate(all_weights)}
        for target in sorted(attributes, key=lambda name: order.get(name, len(order))):
            self._attribute(target, attributes[target])
        for node in nodes:
            self._copy(node, self.program.graph_module)
        return self.graph, self.constants

    def _attribute(self, target: str, places: list[fx.Node]) -> None:
        node = self.graph.create_node("get_attr", target, name=target.replace(".", "_"))
        node.meta = _kept_meta(places[0])
        tensor = self.weights.parameters.get(target)
        if tensor is not None and tensor.requires_grad and self.is_training:
            self.gradient.add(node)
        for place in places:
            self.env[place] = node

    def _copy(self, node: fx.Node, owner: fx.GraphModule) -> None:
        if node.op in ("placeholder", "get_attr"):
            return
        if node.op == "output":
            self.graph.output(fx.map_arg(node.args[0], self.env.__getitem__))
        elif node.op != "call_function":
            raise CaptureError(f"{describe(node)}: {node.op} of {node.target} cannot be captured")
        elif isinstance(node.target, torch._ops.HigherOrderOperator):
            self._inline(node, owner)
        elif node.target is not getattr and _name(node.target) not in DROPPED:
            self._copy_call(node)

    def _copy_call(self, node: fx.Node) -> None:
        source = node.args[0] if node.args else None
        if (
            _name(node.target) == "getitem"
            and isinstance(source, fx.Node)
            and isinstance(self.env[source], (list, tuple))
        ):
            self.env[node] = self.env[source][node.args[1]]  # a result of an inlined region
            return
        if any(tensor.layout != torch.strided for tensor in tensors_in(node.meta.get("val"))):
            raise CaptureError(f"{describe(node)}: {node.target} makes a sparse or nested tensor; use dense ones")
        copy = self.graph.node_copy(node, self.env.__getitem__)
        copy.meta = _kept_meta(node)
        if self.autocast is not None and isinstance(node.target, torch._ops.OpOverload):
            self._cast_operands(copy, *self.autocast)
        self.env[node] = copy
        if gives_gradient(copy.target, copy.meta.get("val"), any(n in self.gradient for n in copy.all_input_nodes)):
            self.gradient.add(copy)

    def _inline(self, node: fx.Node, owner: fx.GraphModule) -> None:
        name = _name(node.target)
        operands: tuple[Any, ...] = node.args
        if name == "wrap_with_set_grad_enabled":
            enabled, inner, *given = operands
            if enabled and self.is_training:
                raise CaptureError(
                    f"{describe(node)}: torch.enable_grad() inside torch.no_grad() cannot be captured for training; "
                    "remove one of them"
                )
        elif name == "wrap_with_autocast":
            device_type, dtype, enabled, _, inner, *given = operands
            outside = self.autocast
            self.autocast = (device_type, dtype or torch.get_autocast_dtype(device_type)) if enabled else None
            self._inline_region(node, owner, inner, given)
            self.autocast = outside
            return
        else:
            remedy = HIGHER_ORDER.get(name, "remove it from the model's forward")
            raise CaptureError(f"{describe(node)}: {name} cannot be captured; {remedy}")
        self._inline_region(node, owner, inner, given)

    def _inline_region(self, node: fx.Node, owner: fx.GraphModule, inner: fx.Node, given: Sequence[Any]) -> None:
        region = owner.get_submodule(str(inner.target))
        assert isinstance(region, fx.GraphModule)
        values = [self.env[arg] if isinstance(arg, fx.Node) else arg for arg in given]
        if _name(node.target) == "wrap_with_set_grad_enabled":
            values = [self._detached(value, node) for value in values]
        places = [inside for inside in region.graph.nodes if inside.op == "placeholder"]
        self.env.update(zip(places, values, strict=True))
        for inside in region.graph.nodes:
            if inside.op == "output":
                self.env[node] = fx.map_arg(inside.args[0], self.env.__getitem__)
            else:
                self._copy(inside, region)

    def _cast_operands(self, node: fx.Node, device_type: str, dtype: torch.dtype) -> None:
        """Insert the casts that autocast makes when this operator runs, and its value then."""
        values = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
        casts = casts_of(node, values, device_type, dtype)
        nodes = [leaf for leaf in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(leaf, fx.Node)]
        with self.graph.inserting_before(node):
            for index, to in casts.items():
                if nodes[index].meta["val"].dtype == to:
                    continue
                cast = self.graph.call_function(torch.ops.aten.to.dtype, (nodes[index], to))
                cast.meta = {**_kept_meta(node), "val": nodes[index].meta["val"].to(to)}
                if nodes[index] in self.gradient:
                    self.gradient.add(cast)
                node.replace_input_with(nodes[index], cast)
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        mode = next((t.fake_mode for t in tensors if isinstance(t, FakeTensor)), None)
        with torch.no_grad(), mode or torch.no_grad():
            node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]

    def _detached(self, value: Any, region: fx.Node) -> Any:
        """The value as a region without gradient sees it."""
        if value not in self.gradient:
            return value
        node = self.graph.call_function(torch.ops.aten.detach.default, (value,))
        node.meta = {**_kept_meta(region), "val": value.meta["val"]}
        return node


def describe(node: fx.Node) -> str:
    """Where a node comes from: the module's path and the line of its code, as far as export tells."""
    path = module_path(node)
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    place = next((line for line in reversed(lines) if line.startswith("File ") and '"<' not in line), "")
    return " ".join(part for part in (f"module {path or '(the model itself)'}", place.replace("File ", "at ")) if part)


def module_path(node: fx.Node) -> str:
    """The qualified name of the module whose forward made the node, without what export adds to it."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return path.removeprefix("L['self']").removeprefix(".").split("@")[0]


def _kept_meta(node: fx.Node) -> dict[str, Any]:
    return {key: node.meta[key] for key in ("val", "nn_module_stack", "stack_trace") if key in node.meta}


def _name(target: Any) -> str:
    packet = getattr(target, "overloadpacket", None)
    return str(getattr(packet or target, "__name__", target))

"""A plain FX graph becomes the planning Graph: the same nodes and names, without torch in it."""

import operator
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

from autotp.capture.gradients import nodes_trained, tensors_in
from autotp.capture.plain import Weights, describe, module_path
from autotp.errors import CaptureError
from autotp.graph import Graph, Node, Operand, TensorSpec, Value

# Operators that change running statistics without saying so in their schema, and the argument under which they do.
RUNNING_STATISTICS = {"batch_norm": "training", "instance_norm": "use_input_stats"}


def planning_graph(graph: fx.Graph, weights: Weights, roots: Iterable[fx.Node]) -> Graph:
    """The planning graph of a plain FX graph; `roots` are the parameters and inputs that gradients flow to."""
    gradient = nodes_trained(graph, roots)
    values: dict[fx.Node, Value | tuple[Value, ...]] = {}
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        if node.target is operator.getitem:
            source, index = node.args
            values[node] = values[source][index]  # type: ignore[index]
            continue
        made = _node(node, weights, gradient, values)
        nodes[made.name] = made
        is_list = isinstance(node.meta.get("val"), (list, tuple))
        values[node] = tuple(Value(node.name, i) for i in range(len(made.outputs))) if is_list else Value(node.name)
    result = Graph(MappingProxyType(nodes))
    result.verify()
    return result


def _node(
    node: fx.Node, weights: Weights, gradient: set[fx.Node], values: dict[fx.Node, Value | tuple[Value, ...]]
) -> Node:
    if node.op == "output":
        returned = tuple(_one(values[tensor]) for tensor in node.args[0])  # type: ignore[union-attr, index]
        return Node(node.name, "output", inputs=returned)
    value = node.meta.get("val")
    trained = {user.args[1] for user in node.users if user in gradient} if isinstance(value, (list, tuple)) else {0}
    tensors = enumerate(tensors_in(value))
    outputs = tuple(_spec(tensor, node, node in gradient and index in trained) for index, tensor in tensors)
    if node.op == "placeholder":
        return Node(node.name, "input", outputs=outputs)
    if node.op == "get_attr":
        target = str(node.target)
        kind = "parameter" if target in weights.parameters else "buffer"
        return Node(node.name, kind, outputs=outputs, module=target.rpartition(".")[0], target=target)
    if not isinstance(node.target, torch._ops.OpOverload) or (
        not isinstance(value, Tensor) and len(outputs) != len(value if isinstance(value, (list, tuple)) else [value])
    ):
        raise CaptureError(
            f"{describe(node)}: {node.target} returns something that is not a tensor, e.g. a number read from one; "
            "what a model computes must not depend on the values in its tensors"
        )
    _check_strides(node)
    inputs: list[Value] = []
    arguments: dict[str, Any] = {}
    for index, argument in enumerate(node.target._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        given = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name, default)
        arguments[argument.name] = _argument(given, inputs, values)
    op = f"{node.target.namespace}.{node.target.overloadpacket.__name__}.{node.target._overloadname}"
    return Node(
        node.name, "op", op, tuple(inputs), outputs, MappingProxyType(arguments), module_path(node),
        writes=_written(node.target, arguments),
    )  # fmt: skip


def _check_strides(node: fx.Node) -> None:
    """Refuse `as_strided` of a tensor whose elements are not in order: other devices may hold it otherwise."""
    if node.target is torch.ops.aten.as_strided.default:
        for source in node.all_input_nodes:
            if not source.meta["val"].is_contiguous() or source.meta["val"].storage_offset():
                raise CaptureError(
                    f"{describe(node)}: as_strided of a tensor that is itself a view; make it contiguous first, or "
                    "use slicing and reshaping"
                )


def _written(target: torch._ops.OpOverload, arguments: dict[str, Any]) -> frozenset[int]:
    """Operands that the operator changes in place, by its schema or by what is known of it."""
    schema = target._schema
    names = {argument.name for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write}
    flag = RUNNING_STATISTICS.get(target.overloadpacket.__name__)
    if flag and arguments[flag]:
        names |= {"running_mean", "running_var"}
    return frozenset(v.index for name, v in arguments.items() if name in names and isinstance(v, Operand))


def _argument(given: Any, inputs: list[Value], values: dict[fx.Node, Value | tuple[Value, ...]]) -> Any:
    """A literal as plain Python; a tensor as the operand it becomes."""
    if isinstance(given, fx.Node):
        value = values[given]
        found = value if isinstance(value, tuple) else (value,)
        inputs.extend(found)
        operands = tuple(Operand(len(inputs) - len(found) + i) for i in range(len(found)))
        return operands if isinstance(value, tuple) else operands[0]
    if isinstance(given, (list, tuple)):
        return tuple(_argument(item, inputs, values) for item in given)
    if isinstance(given, torch.device):
        return None  # a plan made on one machine runs on another: devices are no part of what is planned
    if isinstance(given, (torch.dtype, torch.layout, torch.memory_format)):
        return str(given).removeprefix("torch.")
    return given


def _one(value: Value | tuple[Value, ...]) -> Value:
    assert isinstance(value, Value)
    return value


def _spec(tensor: Tensor, node: fx.Node, has_gradient: bool) -> TensorSpec:
    if any(not isinstance(size, int) for size in tensor.shape):
        raise CaptureError(
            f"{describe(node)}: {node.target} makes a tensor whose shape {list(tensor.shape)} depends on the values in "
            "other tensors; use a form of fixed shape, such as a mask"
        )
    is_float = tensor.is_floating_point() or tensor.is_complex()
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), has_gradient and is_float)

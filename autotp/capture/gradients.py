"""Through which operators a gradient flows, read from the operator and the dtype of what it makes."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx

# Float results that do not depend on their float operands, or are cut off from them.
NOT_DIFFERENTIABLE = frozenset({
    "detach", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like",
    "new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided", "bernoulli",
})  # fmt: skip


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a node's `val`: one, or those of a list or tuple."""
    if isinstance(value, Tensor):
        return [value]
    return [item for item in value if isinstance(item, Tensor)] if isinstance(value, (list, tuple)) else []


def gives_gradient(target: Any, value: Any, inputs_have: bool) -> bool:
    """Whether a gradient flows back through this result of an operator, some float input of which has one."""
    name = getattr(getattr(target, "overloadpacket", None), "__name__", getattr(target, "__name__", ""))
    is_float = any(t.is_floating_point() or t.is_complex() for t in tensors_in(value))
    return inputs_have and is_float and name.rstrip("_") not in NOT_DIFFERENTIABLE


def nodes_with_gradient(graph: fx.Graph, roots: Iterable[fx.Node]) -> set[fx.Node]:
    """Nodes through which a gradient flows back to one of `roots`, trained parameters or inputs."""
    found = set(roots)
    for node in graph.nodes:
        if node.op == "call_function":
            inputs_have = any(source in found for source in node.all_input_nodes)
            if gives_gradient(node.target, node.meta.get("val"), inputs_have):
                found.add(node)
    return found


def nodes_trained(graph: fx.Graph, roots: Iterable[fx.Node]) -> set[fx.Node]:
    """Those of them that a gradient also reaches from the output: not what is only compared, sorted or counted."""
    candidates = nodes_with_gradient(graph, roots)
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node in found:
            found.update(source for source in node.all_input_nodes if source in candidates)
    return found

"""The rule of a node: the table of all operators."""

from collections.abc import Mapping

import torch

from autotp.errors import RuleError
from autotp.graph import Graph, Node, TensorSpec, Value
from autotp.rules import (
    attention,
    bags,
    convolution,
    creation,
    diagonals,
    fourier,
    grouped,
    indexing,
    linalg,
    losses,
    losses_of_vectors,
    matmul,
    normalise,
    parts,
    pointwise,
    products,
    recurrent,
    reduced,
    reductions,
    resize,
    views,
    whole,
)
from autotp.rules.call import Call, RuleFunction
from autotp.rules.custom import CUSTOM
from autotp.rules.names import overload
from autotp.rules.rule import OpRule

TABLE: Mapping[str, RuleFunction] = {
    **pointwise.RULES,
    **matmul.RULES,
    **views.RULES,
    **parts.RULES,
    **reductions.RULES,
    **reduced.RULES,
    **normalise.RULES,
    **attention.RULES,
    **convolution.RULES,
    **indexing.RULES,
    **losses.RULES,
    **creation.RULES,
    **bags.RULES,
    **diagonals.RULES,
    **fourier.RULES,
    **grouped.RULES,
    **linalg.RULES,
    **losses_of_vectors.RULES,
    **products.RULES,
    **recurrent.RULES,
    **resize.RULES,
    **whole.RULES,
}


def _is_tagged(op: str, tag: torch.Tag) -> bool:
    operator = overload(op)
    return operator is not None and tag in operator.tags


def is_pointwise(node: Node) -> bool:
    """Whether every element of the results depends on the elements at the same place only, broadcasting aside."""
    return node.kind == "op" and (_is_tagged(node.op, torch.Tag.pointwise) or node.short_op in ("dropout", "to"))


def _mutates(node: Node) -> bool:
    operator = overload(node.op)
    return operator is not None and operator._schema.is_mutable and node.short_op != "batch_norm"


def function_of(node: Node) -> RuleFunction | None:
    """The row of the table for a node, torch's pointwise tag included; None for an operator that has no rule."""
    if node.op in CUSTOM:
        return CUSTOM[node.op]
    if _mutates(node):  # what is left of in-place operators are updates of buffers, which are whole
        return indexing.nothing_split
    if node.short_op in ("max", "min") and node.argument("other") is not None:
        return pointwise.elementwise
    if node.op == "aten.view.dtype" or (node.op == "aten.where.default"):
        return indexing.nothing_split
    if node.short_op in TABLE:
        return TABLE[node.short_op]
    return pointwise.elementwise if _is_tagged(node.op, torch.Tag.pointwise) else None


def is_fallback(node: Node) -> bool:
    """Whether the operator has no rule, and will run on whole tensors everywhere."""
    return node.kind == "op" and function_of(node) is None


def rule_for(node: Node, operand_specs: tuple[TensorSpec, ...], tiles: tuple[int, ...] = ()) -> OpRule:
    """The rule of an operator node. `tiles`: boundaries of the slices that tile the sliced dim with this one.

    An operator without a rule is whole, see `is_fallback`. Raises RuleError where a rule does not fit the call.
    """
    call = Call(node, operand_specs, tiles)
    function = function_of(node)
    try:
        return replicated(call) if function is None else function(call)
    except RuleError as error:
        raise RuleError(
            f"the rule of {node.op} does not fit the node {node.name} of {node.module or 'the model'}: {error}"
        ) from error


def replicated(call: Call) -> OpRule:
    """Every letter whole; random draws are seeded, so that all ranks get the same."""
    rule = indexing.nothing_split(call)
    if _is_tagged(call.node.op, torch.Tag.nondeterministic_seeded):
        return OpRule(rule.operands, rule.results, rule.extents, whole=rule.whole, local={"*": "seeded"})
    return rule


def rules_of(graph: Graph) -> dict[str, OpRule]:
    """The rules of all operator nodes of a graph, by name. Slices that together tile a dim are a split of it."""
    tiles = _tiles(graph)
    return {
        node.name: rule_for(node, graph.input_specs(node), tiles.get(node.name, ()))
        for node in graph
        if node.kind == "op"
    }


def _tiles(graph: Graph) -> dict[str, tuple[int, ...]]:
    sliced: dict[tuple[Value, int], dict[str, tuple[int, int]]] = {}
    for node in graph:
        if node.kind == "op" and parts.is_plain_slice(node):
            dim, start, end, step = parts.slice_bounds(Call(node, graph.input_specs(node)))
            if step == 1:
                sliced.setdefault((node.inputs[0], dim), {})[node.name] = (start, end)
    found: dict[str, tuple[int, ...]] = {}
    for (value, dim), nodes in sliced.items():
        extent = graph.spec(value).shape[dim]
        pieces = sorted(part for part in set(nodes.values()) if part != (0, extent) and part[0] < part[1])
        edges = (0, *(end for _, end in pieces))
        if pieces and edges[-1] == extent and [start for start, _ in pieces] == list(edges[:-1]):
            found |= {name: edges for name, part in nodes.items() if part in pieces}
    return found

"""Megatron's plan as a restriction of the strategies, so that the same program prices it (arXiv 1909.08053, 2205.05198).

On the last mesh axis: matmuls with a weight by column or row, attention by head, embedding and loss by vocabulary, the
residual stream and norms replicated or split by sequence. On every other axis: the batch.
"""

from collections.abc import Iterator, Sequence

from autotp.cost.problem import PlanningProblem
from autotp.graph import Graph, Node, Value
from autotp.rules.dims import DimAnalysis, Key
from autotp.rules.rule import OpRule
from autotp.rules.strategy import Strategy


def megatron_strategies(
    planning: PlanningProblem, analysis: DimAnalysis, rules: dict[str, OpRule]
) -> list[list[int]] | None:
    """Per node the strategies Megatron's plan may use; None for a model that has no such plan (no weights to divide)."""
    graph = planning.graph
    if any("conv" in node.op for node in graph) or not any(_is_weighted(graph, node, rules) for node in graph):
        return None
    roles = _Roles(graph, analysis)
    allowed = []
    for name, strategies, keys in zip(planning.node_names, planning.strategies, planning.keys, strict=True):
        node = graph[name]
        must_split = node.kind == "op" and (_is_weighted(graph, node, rules) or _is_attention(node))
        outer = _best(
            strategies,
            [
                all(roles.is_batch(s, k, axis) for axis in range(len(k) - 1))
                for s, k in zip(strategies, keys, strict=True)
            ],
        )
        inner = [roles.is_tensor_parallel(strategies[i], keys[i], by_sequence=not must_split) for i in outer]
        found = [i for i, ok in zip(outer, inner, strict=True) if ok]
        if must_split:
            found = [i for i in found if strategies[i].choices[-1].kind == "cut"] or found
        if not found:
            return None
        allowed.append(found)
    return allowed


def _best(strategies: Sequence[Strategy], fits: Sequence[bool]) -> list[int]:
    """Strategies that fit on the outer axes: those that cut the batch on most of them."""
    cuts = [
        sum(choice.kind == "cut" for choice in s.choices[:-1]) if ok else -1
        for s, ok in zip(strategies, fits, strict=True)
    ]
    most = max(cuts)
    return [index for index, count in enumerate(cuts) if count == most]


class _Roles:
    """Which factors are batch, sequence, and features of the residual stream."""

    def __init__(self, graph: Graph, analysis: DimAnalysis) -> None:
        self._batch: set[int] = set()
        self._sequence: set[int] = set()
        self._hidden: set[int] = set()
        embeddings = [node for node in graph if node.short_op == "embedding"]
        for node, value, ndim in _inputs(graph):
            row = analysis.row(value)
            self._batch.update(analysis.terms.flat(row[0], "product"))
            if ndim > 1 + (not embeddings and ndim < 3):
                self._sequence.update(analysis.terms.flat(row[1], "product"))
            if ndim > 1 and not embeddings and node.outputs[0].dtype.startswith(("float", "bfloat")):
                self._hidden.update(analysis.terms.flat(row[-1], "product"))
        for node in embeddings:
            for value in node.inputs[:1]:
                self._hidden.update(analysis.terms.flat(analysis.row(value)[-1], "product"))

    def is_batch(self, strategy: Strategy, keys: Sequence[Key], axis: int) -> bool:
        choice = strategy.choices[axis]
        return choice.kind == "whole" or (choice.kind == "cut" and set(keys[axis]) <= self._batch)

    def is_tensor_parallel(self, strategy: Strategy, keys: Sequence[Key], *, by_sequence: bool) -> bool:
        choice, cut = strategy.choices[-1], set(keys[-1])
        if choice.kind == "whole":
            return True
        forbidden = self._batch | self._hidden | (set() if by_sequence else self._sequence)
        return choice.kind == "cut" and not cut & forbidden


def _inputs(graph: Graph) -> Iterator[tuple[Node, Value, int]]:
    for node in graph:
        if node.kind == "input" and node.outputs and len(node.outputs[0].shape) >= 1:
            yield node, Value(node.name), len(node.outputs[0].shape)


def _is_attention(node: Node) -> bool:
    return node.short_op == "scaled_dot_product_attention"


def _is_weighted(graph: Graph, node: Node, rules: dict[str, OpRule]) -> bool:
    """A matmul with a parameter, or an embedding table."""
    if node.kind != "op" or not (rules[node.name].work[0] or node.short_op == "embedding"):
        return False
    return any(graph[value.node].kind == "parameter" for value in node.inputs)

"""What a compiler fuses: pointwise operators and reductions that read one another's results keep them in registers.

A value that is made by a pointwise operator and read by pointwise operators and reductions only is neither written nor
read, and its reader needs no launch (torch.compile's inductor; the same holds for hand-fused kernels).
"""

from dataclasses import dataclass

from autotp.cost.families import FREE, NORMALISING, REDUCTIONS
from autotp.cost.memory import saved_operands
from autotp.graph import Graph, Node, Value
from autotp.rules.registry import is_pointwise


@dataclass(frozen=True, slots=True)
class Fused:
    """Operands that need not be read, and results that need not be written, by index."""

    operands: frozenset[int] = frozenset()
    results: frozenset[int] = frozenset()


NOTHING = Fused()


def fused(graph: Graph) -> dict[str, Fused]:
    """By operator; those that nothing is fused with are absent."""
    operands: dict[str, set[int]] = {}
    results: dict[str, set[int]] = {}
    for value, readers in graph.consumers().items():
        producer = graph[value.node]
        if not (is_pointwise(producer) or producer.short_op in NORMALISING):
            continue
        is_reduced = producer.short_op in NORMALISING
        fusing = [
            (node, index)
            for node, index in readers
            if is_pointwise(node) or (node.short_op in REDUCTIONS and not is_reduced)
        ]
        for node, index in fusing:
            operands.setdefault(node.name, set()).add(index)
        if len(fusing) == len(readers) and not _is_kept(graph, value, readers):
            results.setdefault(producer.name, set()).add(value.index)
    names = operands.keys() | results.keys()
    return {
        name: Fused(frozenset(operands.get(name, ())), frozenset(results.get(name, ())))
        for name in names
        if graph[name].short_op not in FREE
    }


def _is_kept(graph: Graph, value: Value, readers: list[tuple[Node, int]]) -> bool:
    """Whether somebody saves the value for backward, so that it must be written after all."""
    producer = graph[value.node]
    if value.index in saved_operands(producer, graph.input_specs(producer))[1]:
        return True
    return any(
        node.kind == "op" and index in saved_operands(node, graph.input_specs(node))[0] for node, index in readers
    )

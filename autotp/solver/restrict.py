"""The same problem with fewer strategies."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from autotp.errors import AutoTPError
from autotp.solver.problem import Consumer, Flow, Ints, NodeChoices, Problem

Mapping = tuple[Ints, ...]  # per node: index in the restricted problem -> index in the original one


def restrict(problem: Problem, allowed: Sequence[Sequence[int]]) -> tuple[Problem, Mapping]:
    """The problem with only the `allowed[v]` strategies of every node v, and the way back (see `original`).

    Raises AutoTPError where a node keeps none, or is allowed one it does not have.
    """
    if len(allowed) != len(problem.nodes):
        raise AutoTPError(f"strategies are given for {len(allowed)} nodes, and the problem has {len(problem.nodes)}")
    kept = tuple(np.unique(np.asarray(strategies, dtype=np.int64)) for strategies in allowed)
    for node, strategies in zip(problem.nodes, kept, strict=True):
        if not strategies.size:
            raise AutoTPError(f"node {node.name!r} is left without a strategy")
        if strategies[0] < 0 or strategies[-1] >= len(node.cost_s):
            raise AutoTPError(f"node {node.name!r} has {len(node.cost_s)} strategies, not {strategies.tolist()}")
    nodes = tuple(_keep(node, index) for node, index in zip(problem.nodes, kept, strict=True))
    flows = tuple(_follow(flow, kept) for flow in problem.flows)
    regions = tuple(
        dataclasses.replace(
            region, seconds=tuple(each[kept[v]] for v, each in zip(region.nodes, region.seconds, strict=True))
        )
        for region in problem.regions
    )
    return dataclasses.replace(problem, nodes=nodes, flows=flows, regions=regions), kept


def original(choices: Sequence[int], mapping: Mapping) -> tuple[int, ...]:
    """Choices of a restricted problem in the indices of the original one."""
    return tuple(int(kept[s]) for kept, s in zip(mapping, choices, strict=True))


def _keep(node: NodeChoices, index: Ints) -> NodeChoices:
    if len(index) == len(node.cost_s):
        return node
    return dataclasses.replace(
        node,
        cost_s=node.cost_s[index],
        memory_bytes=node.memory_bytes[index],
        work_bytes=node.work_bytes[index],
        rank=node.rank[index],
        beside_s=None if node.beside_s is None else node.beside_s[index],
    )


def _follow(flow: Flow, kept: Mapping) -> Flow:
    consumers = tuple(Consumer(c.node, c.wants[kept[c.node]], c.saves) for c in flow.consumers)
    return dataclasses.replace(flow, makes=flow.makes[kept[flow.producer]], consumers=consumers)

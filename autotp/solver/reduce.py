"""Strategies that no best plan needs: those that cannot be connected, and those that another one beats in everything."""

import numpy as np

from autotp.errors import InfeasibleError
from autotp.solver.distances import Distances
from autotp.solver.problem import NodeChoices, Problem
from autotp.solver.program import Bools


def useful_strategies(problem: Problem, ways: list[Distances], *, with_memory: bool) -> list[list[int]]:
    """Per node the strategies to keep. Raises InfeasibleError, naming node and value, where a node keeps none."""
    possible = _possible(problem, ways)
    roles: list[list[np.ndarray]] = [[] for _ in problem.nodes]
    for flow in problem.flows:
        roles[flow.producer].append(flow.makes)
        for consumer in flow.consumers:
            roles[consumer.node].append(consumer.wants)
    if problem.regions:  # who is beaten alone may be best together
        return [[int(s) for s in np.flatnonzero(alive)] for alive in possible]
    return [
        _undominated(node, np.flatnonzero(alive), states, with_memory)
        for node, alive, states in zip(problem.nodes, possible, roles, strict=True)
    ]


def _possible(problem: Problem, ways: list[Distances]) -> list[Bools]:
    """Strategies of finite cost whose states can all be connected, until nothing changes."""
    alive = [np.isfinite(node.cost_s) for node in problem.nodes]
    for node, some in zip(problem.nodes, alive, strict=True):
        if not some.any():
            raise InfeasibleError(f"node {node.name!r} has no strategy of finite cost")
    todo = [(flow, way.reaches) for flow, way in zip(problem.flows, ways, strict=True) if not way.connects(flow)]
    changed = True
    while changed:
        changed = False
        for flow, reaches in todo:
            for c in flow.consumers:
                pairs = reaches[np.ix_(flow.makes, c.wants)] & alive[flow.producer][:, None] & alive[c.node]
                if c.node == flow.producer:
                    pairs &= np.eye(len(pairs), dtype=bool)
                for v, axis in ((flow.producer, 1), (c.node, 0)):
                    left = np.asarray(pairs.any(axis=axis))
                    changed |= bool((alive[v] != left).any())
                    alive[v] = left
                    if not left.any():
                        names = problem.nodes[flow.producer].name, problem.nodes[c.node].name
                        raise InfeasibleError(
                            f"no strategy of node {problem.nodes[v].name!r} is left: value {flow.name!r} cannot be "
                            f"brought from any state that {names[0]!r} makes to one that {names[1]!r} wants"
                        )
    return alive


def _undominated(node: NodeChoices, alive: np.ndarray, states: list[np.ndarray], with_memory: bool) -> list[int]:
    if not states or len(alive) == 1:
        groups = np.zeros(len(alive), dtype=np.int64)
    else:
        groups = np.unique(np.stack(states)[:, alive], axis=1, return_inverse=True)[1].ravel()
    if groups.max(initial=0) == len(alive) - 1:
        return [int(s) for s in alive]
    price = node.cost_s[:, None]
    if node.beside_s is not None:  # what hides more may be worth more
        price = np.concatenate([price, -node.beside_s[:, None]], axis=1)
    if with_memory:
        price = np.concatenate([price, node.memory_bytes, node.work_bytes], axis=1)
    kept = []
    for group in range(groups.max() + 1):
        # cheapest first, then preferred: whoever is beaten is beaten by one before it
        members = sorted(alive[groups == group].tolist(), key=lambda s: (*price[s].tolist(), node.rank[s], s))
        best: list[int] = []
        for s in members:
            if not any((price[other] <= price[s]).all() for other in best):
                best.append(s)
        kept += best
    return sorted(kept)

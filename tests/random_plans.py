"""Plans picked by chance: every node any of its strategies, every value taken to its consumers by single-axis steps.

What no planner would choose must be right as well, because the rewriter cannot know what was sensible.
"""

import random

from autotp.mesh import Mesh
from autotp.placement import local_shape
from autotp.plans import Move, ParameterPlan, Plan
from autotp.redistribute import EXACT, PADDED, Step, actions
from autotp.rules.dims import DimAnalysis
from autotp.rules.enumerate import Enumerator
from autotp.rules.registry import rules_of


def random_plan(captured, mesh: Mesh, seed: int = 0, split: float = 1.0, choose=None) -> Plan:
    """`split`: chance that a node avoids its unsplit strategy. `choose(node, strategies)` overrules where not None."""
    picks = random.Random(seed)
    graph, rules = captured.graph, rules_of(captured.graph)
    enumerator = Enumerator(graph, rules, DimAnalysis(graph, rules, {node.name: node.name for node in graph}), mesh)
    strategies = {}
    for node in graph:
        found = [strategy for strategy, _ in enumerator.strategies(node)]
        chosen = choose(node, found) if choose is not None else None
        if chosen is None:
            chosen = picks.choice(found[1:]) if len(found) > 1 and picks.random() < split else found[0]
        strategies[node.name] = chosen
    return plan_of(captured, mesh, strategies, picks)


def is_trained(node) -> bool:
    return node.kind == "output" or any(spec.has_gradient for spec in node.outputs)


def plan_of(captured, mesh: Mesh, strategies, picks=None) -> Plan:
    """A plan of these strategies, its moves made axis by axis (in random order where `picks` is given)."""
    graph = captured.graph
    moves = {}
    for value, readers in graph.consumers().items():
        made = strategies[value.node].results[value.index]
        reached, tree = {made}, []
        # trained readers first: what is moved for others alone has no backward
        for node, index in sorted(readers, key=lambda reader: not is_trained(reader[0])):
            has_gradient = graph.spec(value).has_gradient and is_trained(node)
            wanted = strategies[node.name].operands[index]
            if wanted in reached:
                continue
            at = made
            axes = [axis for axis in range(len(mesh.axes)) if made[axis] != wanted[axis]]
            for axis in picks.sample(axes, len(axes)) if picks else axes:
                target = (*at[:axis], wanted[axis], *at[axis + 1 :])
                if target not in reached:
                    reached.add(target)
                    does = actions(at[axis], wanted[axis], has_gradient=has_gradient)
                    by = [picks.choice((PADDED, EXACT.get(action, PADDED))) if picks else PADDED for action in does]
                    tree.append(Move(Step(axis, at, target), *does, 0.0, 0.0, 0.0, *by))
                at = target
        if tree:
            moves[value] = tuple(tree)
    parameters = {}
    for node in graph:
        if node.kind in ("parameter", "buffer"):
            placement, spec = strategies[node.name].results[0], node.outputs[0]
            shapes = tuple(local_shape(spec.shape, placement, mesh.coordinates(r)) for r in range(mesh.num_ranks))
            names = tuple(captured.tied.get(node.name, (node.target,)))
            parameters[node.name] = ParameterPlan(placement, spec.shape, spec.dtype, shapes, names)
    return Plan(graph.fingerprint(), captured.mode, mesh, strategies, moves, parameters)

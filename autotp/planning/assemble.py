"""From a solution back to names: the decisions of a Plan."""

from collections.abc import Mapping, Sequence
from typing import Any

from autotp.cost.problem import PlanningProblem
from autotp.graph import Value
from autotp.mesh import Mesh
from autotp.placement import local_shape
from autotp.plans import Move, NodeFacts, ParameterPlan
from autotp.report.words import describe_strategy
from autotp.rules.strategy import Strategy
from autotp.solver.problem import Solution


def strategies_of(planning: PlanningProblem, solution: Solution) -> dict[str, Strategy]:
    """The strategy of every node of the graph, folded ones included."""
    chosen = {
        name: strategies[index]
        for name, strategies, index in zip(planning.node_names, planning.strategies, solution.choices, strict=True)
    }
    return {node.name: chosen[planning.classes[node.name]] for node in planning.graph}


def moves_of(planning: PlanningProblem, solution: Solution) -> dict[Value, tuple[Move, ...]]:
    """The redistributions of every value that has any, in the order of the arcs' tree from the made placement."""
    found: dict[Value, tuple[Move, ...]] = {}
    for value, index in planning.flow_of.items():
        flow, states = planning.problem.flows[index], planning.state_graphs[index]
        arcs, reached, moves = list(solution.arcs[index]), {int(flow.makes[solution.choices[flow.producer]])}, []
        while arcs:
            arc = next(arc for arc in arcs if int(states.source[arc]) in reached)
            arcs.remove(arc)
            step, price = states.steps[arc], states.prices[arc]
            reached.add(int(states.target[arc]))
            if step is not None:
                moves.append(
                    Move(
                        step,
                        price.forward,
                        price.backward,
                        price.forward_s,
                        price.backward_s,
                        price.again_s,
                        price.forward_by,
                        price.backward_by,
                    )
                )
        if moves:
            found[value] = tuple(moves)
    return found


def parameters_of(
    planning: PlanningProblem, strategies: Mapping[str, Strategy], mesh: Mesh, names: Mapping[str, tuple[str, ...]]
) -> dict[str, ParameterPlan]:
    """Placement and every rank's local shape of parameters and buffers; `names`: all qualified names of each."""
    found = {}
    for node in planning.graph:
        if node.kind in ("parameter", "buffer"):
            placement, spec = strategies[node.name].results[0], node.outputs[0]
            shapes = tuple(local_shape(spec.shape, placement, mesh.coordinates(rank)) for rank in range(mesh.num_ranks))
            found[node.name] = ParameterPlan(
                placement, spec.shape, spec.dtype, shapes, names.get(node.name, (node.target,))
            )
    return found


def nodes_of(planning: PlanningProblem, times_s: Mapping[str, tuple[float, float]]) -> dict[str, NodeFacts]:
    """What every node computes; `times_s`: forward and backward seconds of the nodes that stand for the others."""
    found = {}
    for node in planning.graph:
        forward_s, backward_s = times_s.get(planning.classes[node.name], (0.0, 0.0))
        module = node.module if node.kind == "op" else node.target.rpartition(".")[0]
        found[node.name] = NodeFacts(node.kind, node.op, module, node.inputs, node.outputs, forward_s, backward_s)
    return found


def words_of_problem(
    planning: PlanningProblem, solution: Solution, allowed: Sequence[Sequence[int]] | None
) -> dict[str, Any]:
    """What a stored problem's indices mean, so that it can be explained without the model.

    `words`: per axis what a strategy does, each listed once; `strategies`: per node of the problem the row of `words` of
    each strategy; `choices`: those of the plan; `members`: every node of the graph with the node of the problem that
    decides for it; `allowed`: the strategies that constraints leave, or None.
    """
    rows: dict[tuple[str, ...], int] = {}
    strategies = []
    for name, some in zip(planning.node_names, planning.strategies, strict=True):
        op = planning.graph[name].short_op
        strategies.append([rows.setdefault(describe_strategy(op, strategy), len(rows)) for strategy in some])
    index_of = {name: index for index, name in enumerate(planning.node_names)}
    return {
        "words": [list(words) for words in rows],
        "strategies": strategies,
        "choices": list(solution.choices),
        "members": {node.name: index_of[planning.classes[node.name]] for node in planning.graph},
        "allowed": None if allowed is None else [list(some) for some in allowed],
    }

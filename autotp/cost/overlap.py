"""When gradients begin to be added up, and what is still computed then: the points of `solver.problem.Overlap`.

The backward pass runs the graph's operators in reverse. A parameter's gradient is there, and begins to be added up, when the
first operator that reads the parameter was differentiated; the operators before that one are still to come.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from autotp.graph import Graph, Value
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.solver.problem import Overlap

MAX_POINTS = 16
LAST = 6  # of them the last to begin, which have least to hide behind: embeddings


def efficiency_of(cluster: ClusterProfile, mesh: Mesh) -> float:
    """How fast the device that is slowed most computes while gradients are added up, of its speed alone."""
    return min(cluster.device_profiles[name].overlap_efficiency for name in cluster.device_names(mesh))


def begins_of(graph: Graph) -> dict[Value, int]:
    """Of every parameter's value the place in the graph of the operator after whose backward its gradient is there."""
    place = {node.name: index for index, node in enumerate(graph)}
    return {
        value: min(place[node.name] for node, _ in readers)
        for value, readers in graph.consumers().items()
        if graph[value.node].kind == "parameter" and graph.spec(value).has_gradient
    }


def overlap_of(
    graph: Graph, efficiency: float, node_of: Mapping[str, int], flow_of: Mapping[Value, int]
) -> Overlap | None:
    """`node_of`, `flow_of`: by name and value, which node and flow of the problem stands for it. None without parameters."""
    begins = begins_of(graph)
    if not begins:
        return None
    points = _chosen(sorted(set(begins.values())))
    num_nodes, num_flows = 1 + max(node_of.values()), 1 + max(flow_of.values())
    after, begun = np.zeros((len(points) + 1, num_nodes)), np.zeros((len(points) + 1, num_flows))
    for row, point in enumerate(points):  # and a last row, of nothing, for what is slowed down all the same
        for place, node in enumerate(graph):
            after[row, node_of[node.name]] += place < point
        for value, place in begins.items():
            begun[row, flow_of[value]] += place <= point
    return Overlap(efficiency, after, begun)


def _chosen(places: Sequence[int]) -> list[int]:
    """The places that come last in backward, and some of the others at even distances."""
    if len(places) <= MAX_POINTS:
        return list(places)
    rest = places[LAST:]
    even = np.linspace(0, len(rest) - 1, MAX_POINTS - LAST).round().astype(int)
    return [*places[:LAST], *(rest[index] for index in even)]

"""Prices of a graph's operators as a step runs them: fused by a compiler, and run again in checkpointed regions."""

from collections.abc import Mapping

from autotp.cost.compute import inner_time_s, operator_time_s
from autotp.cost.fusion import NOTHING, fused
from autotp.cost.local import Coordinates
from autotp.cost.training import Training
from autotp.graph import Graph, Node
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.profile import DeviceProfile
from autotp.mesh import Mesh
from autotp.regions import region_of
from autotp.rules.rule import OpRule
from autotp.rules.strategy import Strategy


class OperatorPrices:
    """Seconds of one forward and backward of operators, for one micro-batch. Errors as `compute.operator_time_s`."""

    def __init__(
        self, graph: Graph, rules: Mapping[str, OpRule], mesh: Mesh, cluster: ClusterProfile, training: Training
    ) -> None:
        self._graph, self._rules, self._mesh, self._cluster = graph, rules, mesh, cluster
        self._training = training
        self._fused = fused(graph) if training.is_compiled else {}
        self.regions = region_of(graph, training.checkpointing if training.mode == "train" else "none")

    def alone(
        self, node: Node, strategy: Strategy, device: DeviceProfile, at: Coordinates = None
    ) -> tuple[float, float]:
        """(forward, backward) without the communication inside the operator."""
        return operator_time_s(
            node, self._rules[node.name], strategy, self._graph.input_specs(node), node.outputs, device,
            self._training.mode, self._mesh, at=at, fused=self._fused.get(node.name, NOTHING),
            is_repeated=node.name in self.regions,
        )  # fmt: skip

    def inside(self, node: Node, strategy: Strategy, device: DeviceProfile) -> tuple[float, float]:
        """(forward, backward) of the communication inside the operator."""
        forward_s, backward_s = inner_time_s(
            node, self._rules[node.name], strategy, device, self._training.mode, self._mesh, self._cluster
        )
        return forward_s, backward_s + (forward_s if node.name in self.regions else 0.0)

    def is_kept(self, producer: Node, reader: Node) -> bool | None:
        """Whether what the reader saves of the producer's is kept: None where that is as without checkpointing.

        What a region reads from outside is kept, whatever its operators save; what it makes is not.
        """
        region = self.regions.get(reader.name)
        if region is None:
            return None
        return self.regions.get(producer.name) != region

"""What one redistribution step takes: the table's actions, priced on the link of the step's axis."""

from dataclasses import dataclass

from autotp.cost.collective import move_time_s
from autotp.cost.device import slowest_device
from autotp.graph import ITEM_BYTES, TensorSpec
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.placement import largest_shape, num_elements
from autotp.redistribute import COLLECTIVES, Collective, Step, actions, collective, sent_dtype


@dataclass(frozen=True, slots=True)
class StepPrice:
    """Actions of a step and the seconds they take on the slowest rank; `again_s`: of a forward that is run again."""

    forward: str
    backward: str
    forward_s: float
    backward_s: float
    again_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.forward_s + self.backward_s + self.again_s


class MovePrices:
    """Prices of redistribution steps on one mesh of a cluster; `reduce_dtype` as in `Training`."""

    def __init__(self, cluster: ClusterProfile, mesh: Mesh, reduce_dtype: str | None = None) -> None:
        self._sizes, self._reduce_dtype = mesh.sizes, reduce_dtype
        self._device = slowest_device(cluster, mesh)
        self._links = [cluster.link(mesh, axis) for axis in range(len(mesh.sizes))]

    def of(self, step: Step, spec: TensorSpec, *, is_repeated: bool = False) -> StepPrice:
        """Price of one occurrence of a step on a tensor of whole spec `spec`; its gradient has the tensor's dtype.

        `is_repeated`: in a region whose forward is run again in backward.
        """
        forward, backward = actions(step.source[step.axis], step.target[step.axis], has_gradient=spec.has_gradient)
        forward_s = self._action_s(forward, step, spec)
        backward_s = self._action_s(backward, step, spec)
        return StepPrice(forward, backward, forward_s, backward_s, forward_s if is_repeated else 0.0)

    def _action_s(self, action: str, step: Step, spec: TensorSpec) -> float:
        if action == "none":
            return 0.0
        if action in COLLECTIVES:
            moved = collective(action, spec.shape, step)
            assert moved is not None
            sent = ITEM_BYTES[sent_dtype(action, spec.dtype, self._reduce_dtype)]
            seconds = move_time_s(moved, sent, self._sizes[step.axis], self._links[step.axis], self._device)
            return seconds + (self._casts_s(moved, spec.item_bytes + sent) if sent != spec.item_bytes else 0.0)
        # Local actions touch memory only. `slice` reads and writes the smaller side, `pad` and `keep` write the larger.
        sizes = [num_elements(largest_shape(spec.shape, placement)) for placement in (step.source, step.target)]
        num_bytes = spec.item_bytes * (2 * min(sizes) if action == "slice" else max(sizes))
        return self._device.launch_s + num_bytes / self._device.memory_bytes_per_s

    def _casts_s(self, moved: Collective, num_bytes: int) -> float:
        """A cast of what is sent and one of what comes back, each reading and writing `num_bytes` per element."""
        back = moved.num_elements / (self._sizes[moved.axis] if moved.kind == "reduce_scatter" else 1)
        return 2 * self._device.launch_s + (moved.num_elements + back) * num_bytes / self._device.memory_bytes_per_s

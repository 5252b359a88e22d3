"""What one redistribution step takes: the table's actions, priced on the link of the step's axis."""

from collections.abc import Iterator
from dataclasses import dataclass

from autotp.cost.collective import least_time_s, move_time_s
from autotp.cost.device import slowest_device
from autotp.graph import ITEM_BYTES, TensorSpec
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.placement import largest_shape, num_elements
from autotp.redistribute import (
    COLLECTIVES,
    EXACT,
    PADDED,
    REDUCTIONS,
    Collective,
    Step,
    actions,
    exact,
    gathered_elements,
    sent_by,
    sent_dtype,
)


@dataclass(frozen=True, slots=True)
class StepPrice:
    """Actions of a step and the seconds they take on the slowest rank; `again_s`: of a forward that is run again.

    `forward_by`, `backward_by`: by which collectives unequal shards are sent (`redistribute.EXACT`), or PADDED.
    """

    forward: str
    backward: str
    forward_s: float
    backward_s: float
    again_s: float = 0.0
    forward_by: str = PADDED
    backward_by: str = PADDED

    @property
    def total_s(self) -> float:
        return self.forward_s + self.backward_s + self.again_s

    @property
    def reduced_s(self) -> float:
        """Seconds of the backward where that adds up partial sums."""
        return self.backward_s if self.backward in REDUCTIONS else 0.0

    @property
    def beside_s(self) -> float:
        """Of these, where they are a parameter's, what can be sent beside other work: not what goes in exact sizes."""
        return self.reduced_s if self.backward_by == PADDED else 0.0


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
        (forward_s, forward_by), (backward_s, backward_by) = (
            self._action(action, step, spec) for action in (forward, backward)
        )
        again_s = forward_s if is_repeated else 0.0
        return StepPrice(forward, backward, forward_s, backward_s, again_s, forward_by, backward_by)

    def _action(self, action: str, step: Step, spec: TensorSpec) -> tuple[float, str]:
        """(seconds, by what) of an action in the cheapest way there is; padded where ways are equal."""
        if action in COLLECTIVES:
            return min(self._ways(action, step, spec), key=lambda way: way[0])
        if action == "none":
            return 0.0, PADDED
        # Local actions touch memory only. `slice` reads and writes the smaller side, `pad` and `keep` write the larger.
        sizes = [num_elements(largest_shape(spec.shape, placement)) for placement in (step.source, step.target)]
        num_bytes = spec.item_bytes * (2 * min(sizes) if action == "slice" else max(sizes))
        return self._device.launch_s + num_bytes / self._device.memory_bytes_per_s, PADDED

    def _ways(self, action: str, step: Step, spec: TensorSpec) -> Iterator[tuple[float, str]]:
        (own,) = sent_by(action, PADDED, spec.shape, step)
        item_bytes = ITEM_BYTES[sent_dtype(action, spec.dtype, self._reduce_dtype)]
        casts_s = self._casts_s(own, spec.item_bytes + item_bytes) if item_bytes != spec.item_bytes else 0.0
        yield self._seconds((own,), item_bytes) + casts_s, PADDED
        by = EXACT.get(action, PADDED)
        if by in self._links[step.axis].collectives and (sent := exact(action, spec.shape, step)):
            yield self._seconds(sent, spec.item_bytes), by

    def _seconds(self, sent: tuple[Collective, ...], item_bytes: int) -> float:
        axis = sent[0].axis
        size, link = self._sizes[axis], self._links[axis]
        return sum(move_time_s(one, item_bytes, size, link, self._device) for one in sent)

    def _casts_s(self, moved: Collective, num_bytes: int) -> float:
        """A cast of what is sent and one of what comes back, each reading and writing `num_bytes` per element."""
        back = moved.num_elements / (self._sizes[moved.axis] if moved.kind == "reduce_scatter" else 1)
        return 2 * self._device.launch_s + (moved.num_elements + back) * num_bytes / self._device.memory_bytes_per_s

    def least_s(self, action: str, seconds: float, step: Step, spec: TensorSpec) -> float:
        """Seconds that an action takes at least, however unequal the shards; `seconds`: with equal ones, padded."""
        by, link = EXACT.get(action, PADDED), self._links[step.axis]
        if by not in link.collectives:
            return seconds
        num_bytes = spec.item_bytes * gathered_elements(spec.shape, step)
        copy_s = self._device.launch_s + 2 * num_bytes / self._device.memory_bytes_per_s
        return min(seconds, copy_s + least_time_s(by, num_bytes, self._sizes[step.axis], link))

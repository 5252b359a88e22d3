"""What one device and one link can do: measured or described numbers, each with its source. No torch here."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from autotp.errors import ProfileError
from autotp.hardware.curves import CollectivePoints, MatmulCurve

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One accelerator, or one CPU process: rates in SI units.

    - `matmul_flops_per_s`: by dtype (torch's names), the best rate measured for a matrix product: the ceiling.
    - `matmul_efficiency`: share of that ceiling that products of ordinary shapes reach; `attention_efficiency`: fused
      attention's share.
    - `memory_bytes_per_s`: achievable memory bandwidth. `launch_s`: the least time that one operator takes.
    - `memory_bytes`: installed memory. `process_bytes`: what a process and its communicators take of it.
    - `matmul_curves`: by dtype, products with their tile and wave steps; `matmul_rate` is for dtypes without one.
    - `operator_factors`: by operator (`gelu`, or `gelu.backward`), its measured time over the roofline's, as measured;
      of an optimizer (`adamw`, `adamw.launches`) that of its memory traffic, and its launches per parameter.
    - `host_operator_s`: what the host takes to start an operator, which no operator undercuts.
    - `overlap_efficiency`: how fast it computes while gradients are added up over ranks, of its speed alone; 0 where
      nothing is gained by doing both at once.
    - `operator_times_s`: by `cost.operator_key`, measured (forward, backward) seconds, which are taken instead of any model.
    - `together_factors`: by kind of work, its seconds with all ranks of a node busy, as in a step, over its seconds alone;
      all rates here are of busy ranks, so these are only told. `spread`: distance between quartiles over the median, of
      the measurements.
    - `peak_flops_per_s`: the datasheet's dense peak by dtype, for utilisation figures only; never used to predict.
    - `source`: where each number is from, by field name. `is_measured`: whether rates were measured on this device.
    """

    name: str
    kind: str
    memory_bytes: int
    matmul_flops_per_s: Mapping[str, float]
    matmul_efficiency: float
    attention_efficiency: float
    memory_bytes_per_s: float
    launch_s: float
    process_bytes: int
    source: Mapping[str, str]
    date: str
    is_measured: bool
    peak_flops_per_s: Mapping[str, float] = field(default_factory=dict)
    matmul_curves: Mapping[str, MatmulCurve] = field(default_factory=dict)
    operator_factors: Mapping[str, float] = field(default_factory=dict)
    host_operator_s: float = 0.0
    overlap_efficiency: float = 0.0
    operator_times_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    together_factors: Mapping[str, float] = field(default_factory=dict)
    spread: float = 0.0

    def matmul_rate(self, dtype: str) -> float:
        """Floating-point operations per second that matrix products reach. Raises ProfileError for an unknown dtype."""
        return self._ceiling(dtype) * self.matmul_efficiency

    def attention_rate(self, dtype: str) -> float:
        """Floating-point operations per second that fused attention reaches. Raises ProfileError as `matmul_rate`."""
        return self._ceiling(dtype) * self.attention_efficiency

    def _ceiling(self, dtype: str) -> float:
        if dtype not in self.matmul_flops_per_s:
            raise ProfileError(
                f"device {self.name} has no matmul_flops_per_s for {dtype}, only for "
                f"{', '.join(self.matmul_flops_per_s)}: choose another --dtype or add the rate to the profile"
            )
        return self.matmul_flops_per_s[dtype]

    def at_speed(self, speed: float) -> "DeviceProfile":
        """A device that takes 1 / `speed` times as long for everything: throttled, or shared with another process."""
        return replace(
            self, name=f"{self.name} at {speed:.0%}",
            matmul_flops_per_s={dtype: rate * speed for dtype, rate in self.matmul_flops_per_s.items()},
            memory_bytes_per_s=self.memory_bytes_per_s * speed,
            launch_s=self.launch_s / speed,
            matmul_curves={dtype: curve.at_speed(speed) for dtype, curve in self.matmul_curves.items()},
            host_operator_s=self.host_operator_s / speed,
            operator_times_s={
                key: (forward_s / speed, backward_s / speed)
                for key, (forward_s, backward_s) in self.operator_times_s.items()
            },
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """A dictionary for json.dump, a `device` of schema.json."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]  # tuples become lists, as in a file


@dataclass(frozen=True, slots=True)
class CollectiveProfile:
    """Latency and bus bandwidth of one collective by group size: linear between the sizes listed.

    Beyond the largest group every further rank adds `added_rank_s` to the latency and the bandwidth stays. `points`, by
    group size, are measured times: what they span is interpolated, and the line is for the rest.
    """

    num_ranks: tuple[int, ...]
    latency_s: tuple[float, ...]
    bus_bytes_per_s: tuple[float, ...]
    added_rank_s: float
    points: Mapping[int, CollectivePoints] = field(default_factory=dict)

    def at(self, num_ranks: int) -> tuple[float, float]:
        """(latency_s, bus_bytes_per_s) in a group of this size."""
        latency = float(np.interp(num_ranks, self.num_ranks, self.latency_s))
        bandwidth = float(np.interp(num_ranks, self.num_ranks, self.bus_bytes_per_s))
        return latency + self.added_rank_s * max(0, num_ranks - self.num_ranks[-1]), bandwidth


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """What joins ranks. For the link between nodes: the bandwidth of one rank per node, with its share of the NICs.

    `spread`: distance between quartiles over the median, of the measurements.
    """

    kind: str
    collectives: Mapping[str, CollectiveProfile]
    source: str
    date: str
    is_measured: bool
    spread: float = 0.0

    def collective(self, kind: str) -> CollectiveProfile:
        """The profile of a collective. Raises ProfileError where the link has none of that kind."""
        if kind not in self.collectives:
            raise ProfileError(f"a {self.kind} link has no numbers for {kind}, only for {', '.join(self.collectives)}")
        return self.collectives[kind]

    def joined(self, num_rails: int, inside: "LinkProfile") -> "LinkProfile":
        """This link as a group of `num_rails` ranks per node uses it: as many shares of it, `inside` at most."""
        if num_rails == 1:
            return self
        found = {}
        for kind, own in self.collectives.items():
            limit = [inside.collective(kind).at(num_rails)[1]] * len(own.num_ranks)
            bandwidth = tuple(min(num_rails * b, top) for b, top in zip(own.bus_bytes_per_s, limit, strict=True))
            # points are of one rank per node: with more the line holds
            found[kind] = CollectiveProfile(own.num_ranks, own.latency_s, bandwidth, own.added_rank_s)
        return LinkProfile(self.kind, found, self.source, self.date, self.is_measured)

"""Measurements of one kind of device become its profile: rates, curves, and factors on the cost model's roofline."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from autotp.cost.compute import operator_time_s, optimizer_time_s
from autotp.cost.training import Training
from autotp.errors import ProfileError
from autotp.graph import ITEM_BYTES
from autotp.hardware.fit_products import fit_cpu, fit_gpu
from autotp.hardware.profile import DeviceProfile
from autotp.hardware.spread import Spread
from autotp.measuring import samples
from autotp.measuring.items import Effort, Item
from autotp.mesh import Mesh
from autotp.placement import R
from autotp.rules.registry import rule_for
from autotp.rules.strategy import Choice, Strategy

ONE = Mesh((("one", 1),))
LARGE = 256  # rows from which products are of ordinary shapes
# operators that run the kernels of one that was measured
SAME = {
    "linear": ("mm", "addmm"),
    "bmm": ("matmul", "baddbmm"),
    "relu": ("threshold", "clamp", "clamp_min", "leaky_relu"),
    "add": ("sub", "maximum", "minimum", "rsub"),
    "clone": ("contiguous", "copy", "to", "_to_copy", "repeat_interleave"),
    "neg": ("abs", "square"),
    "sin": ("cos",),
    "softmax": ("log_softmax",),
    "cat": ("stack",),
    "slice": ("split", "chunk", "split_with_sizes", "select", "unbind", "narrow"),
    "where": ("masked_fill",),
    "layer_norm": ("group_norm",),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What was measured on one kind of device: by item key, (forward, backward) seconds, medians; and their spreads."""

    name: str
    facts: Mapping[str, Any]
    times_s: Mapping[str, tuple[float, float]]
    spread: float

    @classmethod
    def of(
        cls, name: str, ranks: Sequence[int], facts: Mapping[str, Any], found: Mapping[str, Sequence[Any]]
    ) -> "Measured":
        """Out of the samples of all rounds and ranks. What one of the ranks could not run is left out."""
        times, spreads = {}, []
        for key, rounds in found.items():
            if key.startswith("collective/"):
                continue
            rows = [[each[rank] for each in rounds] for rank in ranks]
            if any(row is None for by_rank in rows for row in by_rank):
                continue
            both = [[Spread.of([row[way] for row in by_rank]) for by_rank in rows] for way in (0, 1)]
            forward, backward = (statistics.median(spread.median_s for spread in each) for each in both)
            times[key] = (forward, backward)
            spreads += [spread.spread for spread in both[0]]
        return cls(name, facts, times, statistics.median(spreads) if spreads else 0.0)

    def products(self, dtype: str) -> dict[tuple[int, int, int], tuple[float, float]]:
        """(forward, backward) seconds of products by m, n, k."""
        found = {}
        for key, both in self.times_s.items():
            kind, *rest = key.split("/")
            if kind == "product" and rest[0] == dtype and rest[-1] != "alone":
                m, n, k = map(int, rest[1:4])
                found[m, n, k] = both
        return found


def device_json(measured: Measured, effort: Effort, date: str) -> dict[str, Any]:
    """A `device` of schema.json. Raises ProfileError where the device ran no product."""
    is_cpu = measured.facts["type"] == "cpu"
    rows = effort.rows
    known = [dtype for dtype in effort.dtypes if measured.products(dtype)]
    if not known:
        raise ProfileError(f"{measured.name} ran no matrix product of {', '.join(effort.dtypes)}")
    first = known[0]
    smallest = [measured.times_s[f"memory_bound/{op}/{first}/{rows[0][0]}/{rows[0][1]}"][0] for op in samples.POINTWISE]
    launch_s = min(smallest)
    bandwidth = _bandwidth(measured, first, rows[-1], launch_s)
    ceilings, curves = {}, {}
    for dtype in known:
        both = measured.products(dtype)
        forward = {shape: seconds for shape, (seconds, _) in both.items()}
        ceilings[dtype] = max(_rate(shape, seconds) for shape, seconds in forward.items())
        item_bytes = ITEM_BYTES.get(dtype, 4)
        if is_cpu:
            curves[dtype] = fit_cpu(forward, item_bytes, bandwidth, launch_s)
        else:
            units = int(measured.facts["num_units"])
            curves[dtype] = fit_gpu(forward, item_bytes, units, ceilings[dtype], bandwidth, launch_s)
    shares = {shape: _rate(shape, both[0]) / ceilings[first] for shape, both in measured.products(first).items()}
    ordinary = [share for shape, share in shares.items() if shape[0] >= LARGE]
    efficiency = statistics.median(ordinary or shares.values())
    plain = DeviceProfile(
        name=measured.name, kind=measured.facts["type"], memory_bytes=int(measured.facts["memory_bytes"]),
        matmul_flops_per_s=ceilings, matmul_efficiency=min(1.0, efficiency), attention_efficiency=1.0,
        memory_bytes_per_s=bandwidth, launch_s=launch_s, process_bytes=int(measured.facts["process_bytes"]),
        source={}, date=date, is_measured=True, matmul_curves={k: v for k, v in curves.items() if k != samples.TF32},
        spread=measured.spread, together_factors=_together(measured),
        host_operator_s=0.0 if is_cpu else measured.times_s["host/float32"][0],
    )  # fmt: skip
    rates = [
        _attention_flops(shape) / (seconds * ceilings[first])
        for shape in effort.attention
        if (seconds := measured.times_s.get(Item("attention", (first, *shape)).key, (0.0, 0.0))[0])
    ]
    plain = replace(plain, attention_efficiency=min(1.0, statistics.median(rates)) if rates else 0.5)
    factors = _factors(measured, plain, first, effort)
    what = f"measured: autotp profile, torch {torch.__version__}, medians; quartiles differ by {measured.spread:.0%}"
    names = (
        "memory_bytes", "matmul_flops_per_s", "matmul_efficiency", "attention_efficiency", "memory_bytes_per_s",
        "launch_s", "process_bytes", "matmul_curves", "operator_factors",
        "host_operator_s",
    )  # fmt: skip
    filled = replace(plain, operator_factors=factors, source=dict.fromkeys(names, what))
    return filled.to_json()


def _rate(shape: tuple[int, int, int], seconds: float) -> float:
    m, n, k = shape
    return 2 * m * n * k / seconds


def _attention_flops(shape: tuple[int, ...]) -> float:
    batch, heads, seq, width = shape
    return 4 * batch * heads * seq * seq * width / 2  # causal: half of the two products


def _bandwidth(measured: Measured, dtype: str, shape: tuple[int, int], launch_s: float) -> float:
    """Bytes per second of additions and products of tensors too large for a cache."""
    num_bytes = 3 * shape[0] * shape[1] * ITEM_BYTES[dtype]
    times = [measured.times_s[f"memory_bound/{op}/{dtype}/{shape[0]}/{shape[1]}"][0] for op in ("add", "mul")]
    return num_bytes / max(statistics.median(times) - launch_s, 1e-9)


def _together(measured: Measured) -> dict[str, float]:
    """Seconds with all ranks busy over seconds alone, by kind of item."""
    found: dict[str, float] = {}
    for key, (alone_s, _) in measured.times_s.items():
        if key.endswith("/alone") and key.removesuffix("/alone") in measured.times_s:
            found[key.split("/")[0]] = measured.times_s[key.removesuffix("/alone")][0] / alone_s
    return found


# ---------------------------------------------------------------- factors on the roofline


def _factors(measured: Measured, plain: DeviceProfile, dtype: str, effort: Effort) -> dict[str, float]:
    """Measured seconds over predicted ones by operator and direction, launches aside.

    Of all shapes together, so that those count most that take most of a step.
    """
    found: dict[str, list[float]] = {}
    shapes_only = torch.device("meta")
    for key, (forward_s, backward_s) in measured.times_s.items():
        kind, *rest = key.split("/")
        if kind not in ("product", "batched", "attention", "memory_bound") or rest[-1] == "alone" or dtype not in rest:
            continue
        arguments = [int(each) if each.isdigit() else each for each in rest]
        if kind == "memory_bound" and tuple(arguments[-2:]) == effort.rows[0]:
            continue  # all launch
        made = samples.MAKERS[kind](*arguments, shapes_only)
        predicted = predict(made, plain)
        for name, seconds, expected in zip(("", ".backward"), (forward_s, backward_s), predicted, strict=True):
            if seconds > 0 and expected > plain.launch_s:
                launches = plain.launch_s if made.node.short_op != "linear" else 0.0
                totals = found.setdefault(made.node.short_op + name, [0.0, 0.0])
                totals[0] += max(seconds - launches, seconds / 4)
                totals[1] += expected - launches
    factors = {name: float(f"{took / expected:.4g}") for name, (took, expected) in sorted(found.items())}
    factors["linear"] = 1.0  # what its curve was fitted to
    factors |= _optimizer_factors(measured, plain, dtype, effort.optimizer)
    for known, others in SAME.items():
        for way in ("", ".backward"):
            if known + way in factors:
                factors |= {other + way: factors[known + way] for other in others if other + way not in factors}
    return factors


def _optimizer_factors(
    measured: Measured, plain: DeviceProfile, dtype: str, shapes: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """Launches per parameter, from small ones, and memory traffic over the model's, from large ones."""
    found = {}
    (few, small), (many, large) = shapes[0], shapes[-1]
    for name in ("adamw", "sgd"):
        per_small, per_large = (
            measured.times_s[Item("optimizer", (name, dtype, count, numel)).key][0] / count
            for count, numel in ((few, small), (many, large))
        )
        moved_s = optimizer_time_s(large, dtype, Training(optimizer=name), plain) - plain.launch_s
        found[f"{name}.launches"] = max(per_small / plain.launch_s, 0.01)
        found[name] = max(per_large - per_small, per_large / 4) / moved_s
    return found


def predict(made: samples.Sample, device: DeviceProfile) -> tuple[float, float]:
    """(forward, backward) seconds of a sample by the cost model."""
    placement = (R,)
    whole = Strategy((Choice("whole"),), (placement,) * len(made.specs), (placement,) * len(made.node.outputs))
    rule = rule_for(made.node, made.specs)
    return operator_time_s(made.node, rule, whole, made.specs, made.node.outputs, device, "train", ONE)

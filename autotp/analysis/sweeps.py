"""Which degree? Plans of one model on one device, two, four, ... up to all, and what they say in words."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from autotp.api import as_cluster, capture_for_planning
from autotp.capture.model_file import ModelSource
from autotp.cost.training import Training
from autotp.errors import AutoTPError
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.planning.fitting import plan_captured
from autotp.planning.planner import Planned
from autotp.planning.search import Options
from autotp.plans import Plan

Row = dict[str, Any]


def sweep(
    model: nn.Module | str | Path | ModelSource,
    example_inputs: Any = None,
    *,
    devices: int | None = None,
    cluster: ClusterProfile | str | None = None,
    dtype: str | None = None,
    mode: str = "train",
    optimizer: str = "adamw",
    memory_bytes: float | None = None,
    strategy: str = "optimal",
    **training: Any,
) -> Plan:
    """Plan a model for tp = 1, 2, 4, ... up to `devices` (by default all of the cluster); the fastest plan that fits.

    Where none fits it is the one that needs least. Its `summary["sweep"]` has a row per degree (`mesh`, `num_ranks`,
    `step_s`, `communication_s`, `memory_bytes` of the fullest device, `fits`, `megatron_s`), and
    `summary["sweep_findings"]` what follows from them, in sentences. Other options are those of `plan`; `training`:
    fields of `cost.training.Training`, such as `accumulation`. Raises AutoTPError as `plan`.
    """
    options = Options(Training(mode, optimizer, **training), memory_bytes, strategy=strategy)
    return timed_sweep(model, example_inputs, devices=devices, cluster=cluster, dtype=dtype, options=options).plan


def timed_sweep(
    model: nn.Module | str | Path | ModelSource,
    example_inputs: Any = None,
    *,
    devices: int | None,
    cluster: ClusterProfile | str | None,
    dtype: str | None,
    options: Options,
    progress: Callable[[str], None] = lambda stage: None,
) -> Planned:
    """`sweep`, with the seconds of the best plan's stages."""
    profile = as_cluster(cluster)
    meshes = [Mesh((("tp", degree),)) for degree in degrees(devices or profile.max_ranks)]
    profile.check(meshes[-1])
    progress("capturing the model")
    captured, facts = capture_for_planning(model, example_inputs, mode=options.training.mode, dtype=dtype)
    found = [plan_captured(captured, mesh, profile, options, facts, progress, must_fit=False) for mesh in meshes]
    rows = [row_of(planned.plan) for planned in found]
    best = found[min(range(len(rows)), key=lambda index: _order(rows[index]))]
    summary = {**best.plan.summary, "sweep": rows, "sweep_findings": list(findings(rows))}
    return Planned(replace(best.plan, summary=summary), best.timing)


def beside(planned: Planned, swept: Plan) -> Planned:
    """A plan with the rows of a sweep, and its own row among them."""
    own = row_of(planned.plan)
    rows = [own if row["mesh"] == own["mesh"] else row for row in swept.summary["sweep"]]
    rows += [] if own in rows else [own]
    summary = {**planned.plan.summary, "sweep": rows, "sweep_findings": list(findings(rows))}
    return replace(planned, plan=replace(planned.plan, summary=summary))


def degrees(num_devices: int) -> list[int]:
    """1, 2, 4, ... and the number of devices itself. Raises AutoTPError below 1."""
    if num_devices < 1:
        raise AutoTPError(f"{num_devices} devices: at least 1 is needed")
    powers = [2**exponent for exponent in range(num_devices.bit_length()) if 2**exponent < num_devices]
    return [*powers, num_devices]


def row_of(plan: Plan) -> Row:
    """A plan as a row of the sweep."""
    predicted, megatron = plan.summary["predicted"], plan.summary["baselines"]["megatron"]
    return {
        "mesh": str(plan.mesh),
        "num_ranks": plan.mesh.num_ranks,
        "step_s": predicted["step_s"],
        "communication_s": predicted["exposed_communication_s"],
        "memory_bytes": max(predicted["memory_bytes"]),
        "fits": plan.summary["solver"]["fits"],
        "megatron_s": megatron["step_s"] if megatron else None,
    }


def _order(row: Row) -> tuple[bool, float, int]:
    """What fits comes first, then what is fast; of what does not fit, what needs least."""
    return (not row["fits"], row["step_s"] if row["fits"] else row["memory_bytes"], row["num_ranks"])


def findings(rows: Sequence[Row]) -> Iterator[str]:
    """What the rows say, plainly."""
    best = min(rows, key=_order)
    one = next((row for row in rows if row["num_ranks"] == 1), None)
    fitting = [row for row in rows if row["fits"]]
    if not fitting:
        yield f"does not fit at any degree: {best['mesh']} needs least, {_gib(best['memory_bytes'])} per device"
    elif one is not None and not one["fits"]:
        yield f"does not fit on one device ({_gib(one['memory_bytes'])}); {fitting[0]['mesh']} is the first that fits"
    if fitting and best["num_ranks"] == 1 and len(rows) > 1:
        others = min((row["step_s"] for row in rows if row["num_ranks"] > 1), default=math.inf)
        yield f"one device is fastest: {_ms(best['step_s'])} a step; on more the best plan takes {_ms(others)}"
    elif fitting:
        gain = f", {one['step_s'] / best['step_s']:.2f} times as fast as one device" if one else ""
        yield f"{best['mesh']} is fastest of those that fit: {_ms(best['step_s'])} a step{gain}"
    crowded = next((row for row in rows if row["communication_s"] > row["step_s"] / 2), None)
    if crowded is not None:
        share = crowded["communication_s"] / crowded["step_s"]
        yield f"communication dominates from {crowded['mesh']} on: {share:.0%} of the step"
    elif len(rows) > 1:
        most = max(rows, key=lambda row: row["communication_s"] / row["step_s"])
        share = most["communication_s"] / most["step_s"]
        yield f"communication never dominates: {share:.0%} of the step at most ({most['mesh']})"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.3g} GiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"

"""The public functions: plan, parallelize, auto_shard, verify. Each reads as the pipeline of the README's figure."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from autotp.capture.build import build_fake, cast_floats
from autotp.capture.export import Captured, capture
from autotp.capture.inputs import describe, restore
from autotp.capture.model_file import ModelSource, load_model, reload_model
from autotp.cost.training import Training
from autotp.errors import AutoTPError, CaptureError, InfeasibleError, PlanError
from autotp.hardware.catalogue import load_cluster
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.plan_file import dumps, loads
from autotp.planning.fitting import plan_captured
from autotp.planning.memory_curve import curve_of
from autotp.planning.planner import Planned
from autotp.planning.remedies import least_needed, remedies
from autotp.planning.search import TIME_LIMIT_S, Options
from autotp.planning.shortage import check_fits, with_shortage
from autotp.plans import Plan
from autotp.report.shortage import Remedy, advice, fits, shortage_text
from autotp.rewrite.parallelize import build_module
from autotp.runtime.module import ParallelModule
from autotp.variants import Source, dynamic_dims, with_variants

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}


def plan(
    model: nn.Module | str | Path | ModelSource,
    example_inputs: Any = None,
    *,
    mesh: Mesh | str | int | None = None,
    cluster: ClusterProfile | str | None = None,
    mode: str = "train",
    dtype: str | None = None,
    optimizer: str = "adamw",
    state_dtype: str | None = None,
    checkpointing: str = "none",
    accumulation: int = 1,
    overlap: bool = False,
    reduce_once: bool = False,
    compiled: bool = False,
    reduce_dtype: str | None = None,
    memory_bytes: float | None = None,
    objective: str = "time",
    strategy: str = "optimal",
    fold: bool = True,
    time_limit_s: float | None = TIME_LIMIT_S,
    strict: bool = False,
    dynamic: str | Sequence[str] | None = None,
    solver: str = "highs",
    force: Sequence[str] = (),
    forbid: Sequence[str] = (),
) -> Plan:
    """Plan how to split a model over a mesh.

    `model`: a module (with `example_inputs`: a dict of keyword or a tuple of positional arguments), or a model file.
    `mesh`: `"dp=2,tp=4"`, outermost axis first; a number of devices means `tp`; by default all devices of the cluster.
    `cluster`: a name from `autotp clusters`, a JSON file or a profile; by default `cpu` where there is no GPU.
    `checkpointing`: `"none"`, `"selective"` (the core of attention) or `"full"` (every block) is computed again in
    backward. `accumulation`: micro-batches, of the size of the example, per optimizer step. `overlap`: parameters'
    gradients are added up over ranks beside the rest of the backward pass; `reduce_once`: once per step, with
    `module.no_sync()` around all but its last backward pass, and not once per micro-batch. `compiled`: prices are those of
    the module under `torch.compile`. `reduce_dtype`: `"float32"` adds up partial sums in half precision over ranks in
    float32, which sends twice the bytes; by default in their own dtype. `memory_bytes`: limit per device, by default what
    the device has.
    `objective`: `"time"` or `"memory"`. `dynamic`: dims of the inputs whose size may differ from the example's when the
    module runs, `"batch"` (the first) and `"seq"` (the second). `strategy`: `"optimal"`, `"greedy"`, `"replicated"` or
    `"megatron"`. `time_limit_s`: after it the solver gives the best plan it has, with status `feasible` and its gap; None
    for no limit.
    `force`, `forbid`: constraints such as `"layers.*.mlp.down_proj=column"` (see `autotp.planning.constraints`).

    Raises AutoTPError (and its leaves) with what is wrong and what to do.
    """
    training = Training(
        mode, optimizer, state_dtype, checkpointing=checkpointing, accumulation=accumulation, is_compiled=compiled,
        overlap=overlap, reduce_once=reduce_once,
        reduce_dtype=None if reduce_dtype is None else DTYPES.get(reduce_dtype, reduce_dtype),
    )  # fmt: skip
    options = Options(
        training, memory_bytes, objective, strategy, is_folded=fold,
        time_limit_s=time_limit_s, is_strict=strict, solver=solver, force=tuple(force), forbid=tuple(forbid),
    )  # fmt: skip
    return timed_plan(
        model, example_inputs, mesh=mesh, cluster=cluster, dtype=dtype, options=options, dynamic=dynamic
    ).plan


def timed_plan(
    model: nn.Module | str | Path | ModelSource,
    example_inputs: Any = None,
    *,
    mesh: Mesh | str | int | None,
    cluster: ClusterProfile | str | None,
    dtype: str | None,
    options: Options,
    dynamic: str | Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda stage: None,
    memory_curve: bool = False,
) -> Planned:
    """`plan`, with the seconds each stage took. `progress` is called with the name of every stage as it begins.

    `memory_curve`: the plan's summary also says what the step takes within less memory (see `memory_curve.curve_of`).
    """
    started = time.perf_counter()
    names = dynamic_dims(dynamic)
    profile = as_cluster(cluster)
    axes = as_mesh(mesh, profile)
    profile.check(axes)
    progress("capturing the model")
    captured, facts = capture_for_planning(model, example_inputs, mode=options.training.mode, dtype=dtype)
    captured_at = time.perf_counter()
    facts = {**facts, "dynamic": list(names)} if names else facts
    # Where nobody asked for a limit, what the step would be is said, and that the devices are too small for it.
    must_fit = options.memory_bytes is not None
    try:
        planned = plan_captured(captured, axes, profile, options, facts, progress, must_fit=must_fit)
    except InfeasibleError as error:
        if not must_fit:  # it is not memory that forbids all plans
            raise
        progress("looking for what would fit")
        found = remedies(captured, axes, profile, options) + _smaller_batch(model, axes, profile, dtype, options)
        raise InfeasibleError(f"{error}. {advice(found)}") from error
    if not fits(planned.plan):
        progress("looking for what would fit")
        # another batch is captured anew, which takes longer than the others: only where none of them helps
        found = remedies(captured, axes, profile, options) or _smaller_batch(model, axes, profile, dtype, options)
        planned = replace(planned, plan=with_shortage(planned.plan, found))
        warnings.warn(shortage_text(planned.plan))
    if memory_curve:
        progress("pricing memory")
        curve = curve_of(captured, planned.plan, axes, profile, options)
        planned = Planned(
            replace(planned.plan, summary={**planned.plan.summary, "memory_curve": curve}), planned.timing
        )
    timing = {"capture_s": captured_at - started, **planned.timing, "total_s": time.perf_counter() - started}
    return Planned(planned.plan, timing)


def _smaller_batch(
    model: Any, mesh: Mesh, cluster: ClusterProfile, dtype: str | None, options: Options
) -> tuple[Remedy, ...]:
    """The largest half, quarter, ... of the batch that fits, for a model that can be built with another one."""
    origin = dict(model.origin) if isinstance(model, ModelSource) else {}
    if not origin.get("path"):
        return ()
    size = int(next(iter(_tensors(model.example_inputs()))).shape[0])
    given = "batch" not in origin.get("options", {})
    for batch in sorted({max(1, size // 2), max(1, size // 4), 1} - {size}, reverse=True):
        try:
            changed = {"batch": batch} if given else {"options": {**origin["options"], "batch": batch}}
            captured, _ = capture_for_planning(
                reload_model({**origin, **changed}), None, mode=options.training.mode, dtype=dtype
            )
        except CaptureError:
            return ()  # a model file without such an option
        needed = least_needed(captured, mesh, cluster, options)
        if needed is not None:
            return (Remedy(f"a batch of {batch} instead of {size} (--batch {batch})", needed),)
    return ()


def _tensors(inputs: Any) -> list[torch.Tensor]:
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [x for x in values if isinstance(x, torch.Tensor) and x.dim()]


def capture_for_planning(
    model: nn.Module | str | Path | ModelSource, example_inputs: Any, *, mode: str, dtype: str | None
) -> tuple[Captured, dict[str, Any]]:
    """Capture a module, or a model file on fake parameters; and what a plan says of where it came from."""
    torch_dtype = as_dtype(dtype)
    if isinstance(model, str | Path):
        model = load_model(str(model), {}, None, None)
    if isinstance(model, ModelSource):
        module, fake_mode = build_fake(model.build, dtype=torch_dtype)
        inputs = cast_floats(model.example_inputs(), torch_dtype)
        outputs = "loss" if mode == "train" else "all"
        captured = capture(module, inputs, mode=mode, outputs=outputs, fake_mode=fake_mode)
        return captured, {"origin": dict(model.origin), "dtype": dtype, "outputs": outputs, "inputs": describe(inputs)}
    if example_inputs is None:
        raise AutoTPError(
            "planning a module needs example_inputs: a dict of keyword or a tuple of positional arguments"
        )
    captured = capture(model, example_inputs, mode=mode, outputs="all")
    return captured, {"origin": None, "dtype": dtype, "outputs": "all", "inputs": describe(example_inputs)}


def parallelize(
    model: nn.Module,
    plan: Plan,
    device_mesh: DeviceMesh,
    *,
    inputs: str = "whole",
    init: Callable[[str, torch.Tensor], None] | None = None,
    must_fit: bool = True,
) -> ParallelModule:
    """This rank's part of `model` under `plan`: an nn.Module that takes and returns what the model does.

    `device_mesh` has the plan's axes. `inputs="local"`: each rank of a batch axis passes its own part of the batch.
    A model with real weights is sharded as it is; for one on fake parameters `init(name, shard)` fills each local shard
    (zeros without it). Raises PlanError where plan, model and mesh do not belong together, or the plan does not fit the
    devices it was made for and it `must_fit`.
    """
    if must_fit:
        check_fits(plan)
    if tuple(device_mesh.mesh_dim_names or ()) != plan.mesh.names or tuple(device_mesh.mesh.shape) != plan.mesh.sizes:
        raise PlanError(
            f"the plan is for the mesh {plan.mesh}, the device mesh has "
            f"{dict(zip(device_mesh.mesh_dim_names or (), device_mesh.mesh.shape, strict=False))}: make them equal"
        )
    captured = capture(model, restore(plan.model["inputs"]), mode=plan.mode, outputs=plan.model["outputs"])
    module = build_module(captured, plan, device_mesh, inputs=inputs, init=init)
    return with_variants(module, Source(model, captured, plan))


def auto_shard(
    model: nn.Module, example_inputs: Any, *, mesh: Mesh | str | int | None = None, **options: Any
) -> ParallelModule:
    """Plan and rewrite in one call, under torchrun: rank 0 plans, everybody gets the same plan.

    `mesh` defaults to `tp` over all ranks; `options` are those of `plan`. Raises PlanError where nothing fits the devices.
    """
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    axes = as_mesh(mesh if mesh is not None else dist.get_world_size(), None)
    if axes.num_ranks != dist.get_world_size():
        raise AutoTPError(f"the mesh {axes} needs {axes.num_ranks} ranks, torchrun started {dist.get_world_size()}")
    message: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            message[0] = dumps(plan(model, example_inputs, mesh=axes, **options))
        except AutoTPError as error:  # the other ranks wait for the plan: tell them before raising here
            message[1] = str(error)
    dist.broadcast_object_list(message, src=0)
    if message[1] is not None:
        raise AutoTPError(message[1])
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    return parallelize(model, loads(message[0]), init_device_mesh(device_type, axes.sizes, mesh_dim_names=axes.names))


# ---------------------------------------------------------------- what users may write


def as_cluster(cluster: ClusterProfile | str | None) -> ClusterProfile:
    """A profile, its name or file; the default is `cpu`, or must be named where there is a GPU."""
    if isinstance(cluster, ClusterProfile):
        return cluster
    if cluster is None and torch.cuda.is_available():
        raise AutoTPError("name the cluster (--cluster): `autotp clusters` lists the known ones")
    return load_cluster(cluster or "cpu")


def as_mesh(mesh: Mesh | str | int | None, cluster: ClusterProfile | None) -> Mesh:
    if isinstance(mesh, Mesh):
        return mesh
    if mesh is None:
        if cluster is None:
            raise AutoTPError("name the mesh, as in tp=4")
        mesh = cluster.max_ranks
    return Mesh.parse(str(mesh))


def as_dtype(dtype: str | None) -> torch.dtype | None:
    if dtype is None:
        return None
    name = DTYPES.get(dtype, dtype)
    if name not in DTYPES.values():
        raise AutoTPError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    found: torch.dtype = getattr(torch, name)
    return found

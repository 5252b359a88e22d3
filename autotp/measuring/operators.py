"""`autotp plan --measure`: the operators of a model, timed on the device at hand, instead of the cost model's prices."""

import contextlib
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist

from autotp.api import as_cluster, as_mesh, capture_for_planning
from autotp.capture.export import Captured
from autotp.capture.model_file import ModelSource
from autotp.capture.repeats import fold
from autotp.cost.training import Training
from autotp.errors import ProfileError, VerificationError
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.import_nccl import catalogue_name
from autotp.measuring import samples
from autotp.measuring.cache import OperatorCache, Subject, cache_path, subject_of
from autotp.measuring.local_calls import LocalOperator, local_operators, runnable
from autotp.measuring.progress import Progress
from autotp.mesh import Mesh
from autotp.planning.search import Options
from autotp.rules.registry import rules_of
from autotp.runtime.spawn import run_processes

NUM_ROUNDS = 3
BUDGET_S = 300.0
LEAST_S = 0.01
SLACK_S = 600.0


@dataclass(frozen=True)
class OperatorTask:
    """What every rank is told: the operators that need so many more samples each, and where these go."""

    operators: tuple[tuple[LocalOperator, int], ...]
    subject: Subject
    cache: str
    budget_s: float
    device_type: str


@dataclass(frozen=True)
class Measured:
    """A cluster with operators' times, and how many there are: measured now, known before, and left to the model."""

    cluster: ClusterProfile
    num_measured: int
    num_known: int
    num_left: int

    def counts(self) -> dict[str, int]:
        """Operators by where their seconds are from, for `--json`."""
        return {"now": self.num_measured, "before": self.num_known, "left_to_the_model": self.num_left}


def measured_cluster(
    source: ModelSource,
    mesh: Mesh | None,
    cluster: ClusterProfile | str | None,
    options: Options,
    dtype: str | None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Measured:
    """The cluster that a model is planned for, named as for `autotp.plan`, with its operators' times."""
    profile = as_cluster(cluster)
    axes = as_mesh(mesh, profile)
    profile.check(axes)
    progress("capturing the model")
    captured, _ = capture_for_planning(source, None, mode=options.training.mode, dtype=dtype)
    return measure_operators(captured, axes, profile, options.training, is_folded=options.is_folded, progress=progress)


def measure_operators(
    captured: Captured,
    mesh: Mesh,
    cluster: ClusterProfile,
    training: Training,
    *,
    cache: Path | None = None,
    budget_s: float = BUDGET_S,
    is_folded: bool = True,
    progress: Callable[[str], None] = lambda stage: None,
) -> Measured:
    """Time what candidate strategies would run, with as many ranks busy as there are here and in the mesh.

    What the budget does not reach, the longest first, stays priced by the model. Raises ProfileError where the device at
    hand is none of the cluster's, or where ranks fail.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    num_here = torch.cuda.device_count() if device.type == "cuda" else os.cpu_count() or 1
    num_ranks = max(1, min(mesh.num_ranks, num_here))
    subject = subject_of(device, num_ranks)
    names = _same_devices(cluster, device.type, subject.device)
    several = sum(size > 1 for size in mesh.sizes) > 1
    graph = captured.graph
    classes = fold(graph, ends=0 if several else 1) if is_folded else {node.name: node.name for node in graph}
    wanted = local_operators(captured, rules_of(graph), classes, mesh, cluster, training)
    store = OperatorCache(cache or cache_path())
    keys = [each.key for each in wanted]
    before = store.samples(subject, keys)
    todo = tuple((each, NUM_ROUNDS - len(before.get(each.key, ()))) for each in wanted)
    missing = tuple((each, count) for each, count in todo if count > 0)
    if missing:
        progress(f"measuring {len(missing)} operators")
        task = OperatorTask(missing, subject, str(store.path), budget_s, device.type)
        try:
            run_processes(
                _rank, num_ranks, (task,), backend="nccl" if device.type == "cuda" else "gloo",
                timeout_s=budget_s + SLACK_S,
            )  # fmt: skip
        except VerificationError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ProfileError(f"operators could not be measured: {lines[0]} {lines[-1]}") from error
    after = store.samples(subject, keys)
    times = {
        key: (statistics.median(f for f, _ in rows), statistics.median(b for _, b in rows))
        for key in sorted(after)
        if (rows := after[key])
    }
    devices = {
        name: replace(profile, operator_times_s=times) if name in names else profile
        for name, profile in cluster.device_profiles.items()
    }
    num_known = len(wanted) - len(missing)
    return Measured(
        replace(cluster, device_profiles=devices), len(times) - num_known, num_known, len(wanted) - len(times)
    )


def _same_devices(cluster: ClusterProfile, kind: str, here: str) -> set[str]:
    """The cluster's devices that are what is at hand: by name, and any CPU for a CPU, whose profiles are of no model."""
    names = {here}
    if kind == "cuda":
        with contextlib.suppress(ProfileError):  # what the catalogue does not know was profiled under its own name
            names.add(catalogue_name(here))
    found = {
        name
        for name, profile in cluster.device_profiles.items()
        if profile.kind == kind and (kind == "cpu" or name.split(" (slower")[0] in names)
    }
    if not found:
        raise ProfileError(
            f"this machine has {here}, the cluster {cluster.name} {', '.join(cluster.device_profiles)}: measure operators "
            "on a machine of the cluster, or plan for one that `autotp profile` measured here"
        )
    return found


# ---------------------------------------------------------------- what one process does


def _rank(rank: int, task: OperatorTask) -> None:
    device = torch.device("cuda", torch.cuda.current_device()) if task.device_type == "cuda" else torch.device("cpu")
    store = OperatorCache(Path(task.cache)) if rank == 0 else None
    ends_at = time.monotonic() + task.budget_s
    rounds = max(count for _, count in task.operators)
    total = sum(count for _, count in task.operators)
    with Progress(total, shown=rank == 0) as progress:
        for number in range(rounds):
            for local, count in task.operators:
                if number >= count:
                    continue
                is_over = torch.tensor(float(time.monotonic() > ends_at), device=device)
                dist.broadcast(is_over, 0)  # by one rank's clock; it is a barrier too
                if is_over:
                    return
                found = together(local, device)
                if store is not None and found is not None:
                    store.add(task.subject, local.key, found)
                progress.advance(f"round {number + 1} of {rounds}: {local.op}")


def together(local: LocalOperator, device: torch.device) -> tuple[float, float] | None:
    """The mean over ranks, all of which are busy with the same; None where it cannot be run."""
    own = torch.tensor([float("inf")] * 2, dtype=torch.float64, device=device)
    try:
        run, operands = runnable(local, device)
        dist.barrier()
        own = torch.tensor(samples.times_s(run, operands, device, LEAST_S), dtype=torch.float64, device=device)
    except (RuntimeError, IndexError, ValueError, TypeError):
        pass  # told to the others as no number, and left to the model
    dist.all_reduce(own)
    seconds = (own / dist.get_world_size()).tolist()
    return (seconds[0], seconds[1]) if all(map(_is_finite, seconds)) else None


def _is_finite(seconds: float) -> bool:
    return seconds < float("inf")

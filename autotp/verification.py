"""`verify`: the planned module against the whole model, on simulated ranks or over real processes."""

import copy
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils import _pytree as pytree

from autotp.api import as_cluster, as_dtype, as_mesh
from autotp.capture.build import cast_floats, default_dtype
from autotp.capture.call import Slot
from autotp.capture.export import Captured, capture
from autotp.capture.inputs import describe
from autotp.capture.model_file import ModelSource, load_model, reload_model
from autotp.cost.training import Training
from autotp.errors import AutoTPError, PlanError, VerificationError
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.plan_file import dumps, loads
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.plans import Plan
from autotp.rewrite.parallelize import build_for_rank
from autotp.rules.registry import rules_of
from autotp.runtime.communicator import Communicator, communicators_of
from autotp.runtime.compare import tolerance
from autotp.runtime.randomness import WithoutRandomness, without_randomness
from autotp.runtime.simulate import run_ranks
from autotp.runtime.spawn import run_processes
from autotp.runtime.verify import RankReport, Reference, reference_of, summarise, verify_rank
from autotp.variants import DYNAMIC, Source, dynamic_dims, with_variants

BACKENDS = ("local", "gloo", "nccl")
SEED = 0  # of the weights: every process must build the same model


@dataclass(frozen=True)
class Subject:
    """A real model with its inputs, captured, and the options it was captured with."""

    module: nn.Module
    inputs: Any  # what it is captured with
    captured: Captured
    others: Any = None  # what it is run with, where that is something else

    def run(self, module: nn.Module) -> list[Tensor]:
        """Call any module that is called as the model is; its outputs as the captured graph has them."""
        inputs = self.inputs if self.others is None else self.others
        args, kwargs = ((), inputs) if isinstance(inputs, Mapping) else (inputs, {})
        with WithoutRandomness():
            return _flat_outputs(self.captured, module(*args, **kwargs))


def verify(
    model: nn.Module | str | Path | ModelSource,
    example_inputs: Any = None,
    *,
    plan: Plan | None = None,
    mesh: Mesh | str | int | None = None,
    cluster: ClusterProfile | str | None = None,
    mode: str = "train",
    dtype: str | None = None,
    backend: str = "local",
    dynamic: str | Sequence[str] | None = None,
    timeout_s: float = 600.0,
    progress: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
    """Compare the sharded with the whole model: outputs, every gradient, and parameters after an SGD step.

    Without a plan one is made with `objective="memory"`, which splits everything that can be. `backend`: `"local"`
    simulates ranks in this process; `"gloo"` and `"nccl"` start real ones. With `dynamic` (the plan's own, or as in
    `autotp.plan`) inputs of other sizes are compared as well. Returns a dict with `ok`, `ranks`, `max_relative_error`,
    `parameter_bytes_per_rank`, `whole_parameter_bytes`, `coverage`, `fallback_ops` and `problems`.
    Dropout is off on both sides. Raises AutoTPError (and leaves) where nothing can be compared.
    """
    if backend not in BACKENDS:
        raise AutoTPError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if plan is not None:
        mode, dtype = plan.mode, plan.model.get("dtype")
    source = load_model(str(model)) if isinstance(model, str | Path) else model
    progress("building and capturing the model")
    subject = subject_of(source, example_inputs, mode, dtype)
    if plan is None:
        progress("planning")
        plan = plan_for(subject, source, mesh, cluster, dtype, dynamic)
    elif mesh is not None and as_mesh(mesh, None) != plan.mesh:
        raise PlanError(f"the plan is for the mesh {plan.mesh}, not {mesh}: leave the mesh out or plan again")
    result: dict[str, Any] = {}
    names = dynamic_dims(plan.model.get("dynamic"))
    for case in [subject, replace(subject, others=resized(subject.inputs, names))] if names else [subject]:
        progress("running the whole model")
        reference = reference_of(case.module, case.run, mode)
        progress(f"running {plan.mesh.num_ranks} ranks ({backend})")
        if backend == "local":
            reports = _simulated(case, plan, reference, timeout_s)
        else:
            reports = _in_processes(source, case, plan, reference, mode, dtype, backend, timeout_s)
        result = _worse(result, summarise(reports, reference, case.module, bound_of(case.captured)))
    return {
        **result,
        "mesh": str(plan.mesh),
        "mode": mode,
        "backend": backend,
        "coverage": plan.summary["coverage"],
        "fallback_ops": list(plan.fallback_ops),
    }


def plan_for(
    subject: Subject,
    source: nn.Module | ModelSource,
    mesh: Mesh | str | int | None,
    cluster: ClusterProfile | str | None = None,
    dtype: str | None = None,
    dynamic: str | Sequence[str] | None = None,
) -> Plan:
    """A plan that splits what it can: few bytes matter here, seconds less, so a plan a little slower is soon found."""
    profile, mode = as_cluster(cluster), subject.captured.mode
    options = Options(Training(mode), objective="memory", gap=0.1)
    facts = {"inputs": describe(subject.inputs), "outputs": _outputs_of(source, mode), "dtype": dtype}
    if dynamic:
        facts["dynamic"] = list(dynamic_dims(dynamic))
    return make_plan(subject.captured, as_mesh(mesh, profile), profile, options, facts).plan


def bound_of(captured: Captured) -> float:
    """The relative error that rounding excuses, by the least precise dtype in the graph and its longest sum."""
    names = {spec.dtype for node in captured.graph for spec in node.outputs}
    longest = 1
    for rule in rules_of(captured.graph).values():
        letters = set(rule.work[1]) if rule.work[0] else set()
        operands = [row for index, row in enumerate(rule.operands) if index not in rule.additive]
        for row in (*operands, *rule.results):  # forward sums over what the result lacks, backward over the rest
            missing = letters.difference(*(dim.letters for dim in row))
            longest = max(longest, math.prod(rule.extents[letter] for letter in missing))
    return tolerance([getattr(torch, name) for name in names], longest)


def resized(inputs: Any, dynamic: Sequence[str]) -> Any:
    """The same nested inputs with other sizes of the dynamic dims: three quarters, or one more where there are few.

    Equal sizes stay equal.
    """

    def resize(x: Tensor) -> Tensor:
        for dim in (DYNAMIC[name] for name in dynamic if DYNAMIC[name] < x.dim()):
            size = x.shape[dim]
            x = x.index_select(dim, torch.arange(3 * size // 4 if size > 3 else size + 1) % size)
        return x

    return pytree.tree_map_only(Tensor, resize, inputs)


def _worse(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Of two results the larger errors, and the problems of both."""
    if not first:
        return dict(second)
    a, b = first["max_relative_error"], second["max_relative_error"]
    errors = {kind: None if a[kind] is None or b[kind] is None else max(a[kind], b[kind]) for kind in a}
    problems = [*first["problems"], *(f"with inputs of other sizes: {problem}" for problem in second["problems"])]
    return {**first, "ok": not problems, "max_relative_error": errors, "problems": problems}


def _simulated(subject: Subject, plan: Plan, reference: Reference, timeout_s: float) -> Sequence[RankReport]:
    origin = Source(subject.module, subject.captured, plan)
    return run_ranks(
        plan.mesh, lambda rank, c: rank_report(subject, plan, rank, c, reference, origin), timeout_s=timeout_s
    )


def _outputs_of(source: nn.Module | ModelSource, mode: str) -> str:
    return "loss" if isinstance(source, ModelSource) and mode == "train" else "all"


def subject_of(source: nn.Module | ModelSource, example_inputs: Any, mode: str, dtype: str | None) -> Subject:
    """The real model, with the same weights in every process that asks."""
    if isinstance(source, ModelSource):
        torch.manual_seed(SEED)
        torch_dtype = as_dtype(dtype)
        with default_dtype(torch_dtype):
            module = source.build()
        module = module if torch_dtype is None else module.to(torch_dtype)
        inputs = cast_floats(source.example_inputs(), torch_dtype)
    else:
        module, inputs = copy.deepcopy(source), example_inputs
        if inputs is None:
            raise AutoTPError(
                "verifying a module needs example_inputs: a dict of keyword or a tuple of positional arguments"
            )
    module.train(mode == "train")
    return Subject(module, inputs, capture(module, inputs, mode=mode, outputs=_outputs_of(source, mode)))


def rank_report(
    subject: Subject,
    plan: Plan,
    rank: int,
    communicators: Mapping[str, Communicator],
    reference: Reference,
    origin: Source,
) -> RankReport:
    """What one rank finds: every rank must call it."""
    module = with_variants(build_for_rank(subject.captured, plan, rank, communicators), origin)
    without_randomness(module.graph_module)
    if subject.others is not None:
        args, kwargs = ((), subject.others) if isinstance(subject.others, Mapping) else (subject.others, {})
        assert module.variants is not None
        variant, _ = module.variants.find(subject.captured.flatten_inputs(args, kwargs, False), module.training)
        without_randomness(variant)
    return verify_rank(module, subject.run, reference)


def _flat_outputs(captured: Captured, returned: Any) -> list[Tensor]:
    """The tensors that the captured graph returns, out of what a call returned.

    A call may return more than was captured: Hugging Face's caches, and beside a loss everything else.
    """
    wanted, _ = pytree.tree_flatten_with_path(captured.outputs.structure)
    found = dict(pytree.tree_flatten_with_path(returned)[0])
    if any(path not in found for path, _ in wanted):  # capture kept only the loss
        returned = returned.get("loss") if isinstance(returned, Mapping) else getattr(returned, "loss", None)
        found = dict(pytree.tree_flatten_with_path(returned)[0])
    slots = {slot.index: found[path] for path, slot in wanted if isinstance(slot, Slot)}
    return [slots[index] for index in sorted(slots)]


# ---------------------------------------------------------------- real processes


def _in_processes(
    source: nn.Module | ModelSource,
    subject: Subject,
    plan: Plan,
    reference: Reference,
    mode: str,
    dtype: str | None,
    backend: str,
    timeout_s: float,
) -> Sequence[RankReport]:
    """One process per rank; each builds the model again, and reads plan, inputs and reference from a file."""
    with tempfile.TemporaryDirectory(prefix="autotp-") as folder:
        path = os.path.join(folder, "subject.pt")
        origin = source.origin if isinstance(source, ModelSource) else None
        try:
            torch.save(
                {
                    "origin": origin,
                    "module": None if origin else source,
                    "inputs": subject.inputs,
                    "others": subject.others,
                    "plan": dumps(replace(plan, problem={})),
                    "reference": reference,
                    "mode": mode,
                    "dtype": dtype,
                },
                path,
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise VerificationError(
                f"the model cannot be sent to other processes ({error}): put it into a model file, or use backend='local'"
            ) from error
        return run_processes(_process, plan.mesh.num_ranks, (path, backend), backend=backend, timeout_s=timeout_s)


def _process(rank: int, path: str, backend: str) -> RankReport:
    """What one process does. Must be importable by name."""
    sent = torch.load(path, weights_only=False)  # written by our own parent
    plan = loads(sent["plan"])
    source = reload_model(sent["origin"]) if sent["origin"] else sent["module"]
    subject = replace(subject_of(source, sent["inputs"], sent["mode"], sent["dtype"]), others=sent["others"])
    device_type = "cuda" if backend == "nccl" else "cpu"
    device_mesh = init_device_mesh(device_type, plan.mesh.sizes, mesh_dim_names=plan.mesh.names)
    origin = Source(subject.module, subject.captured, plan)
    return rank_report(subject, plan, rank, communicators_of(device_mesh), sent["reference"], origin)

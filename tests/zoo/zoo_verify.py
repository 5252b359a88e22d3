"""Verification of models of the zoo: planned, rewritten, run, and compared with the whole model."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from zoo_case import Case

from autotp.capture.build import cast_floats
from autotp.runtime.communicator import communicators_of
from autotp.runtime.spawn import run_processes
from autotp.runtime.verify import reference_of, summarise
from autotp.variants import Source
from autotp.verification import bound_of, plan_for, rank_report, subject_of, verify

GLOO_RANKS = 2


def verified(case: Case, mesh: str, mode: str) -> dict[str, Any]:
    """The result of `verify`, and of the fullest rank the part of all parameter bytes; `split` of the matmul FLOPs."""
    model, inputs = made(case)
    with only_known_warnings():
        result = verify(model, inputs, mesh=mesh, mode=mode)
    fraction = max(result["parameter_bytes_per_rank"]) / result["whole_parameter_bytes"]
    return {**result, "split": result["coverage"]["split_matmul_flops_fraction"], "parameter_fraction": fraction}


def made(case: Case) -> tuple[torch.nn.Module, Any]:
    """The model, with the same weights whenever it is called, and its inputs."""
    torch.manual_seed(0)
    return case.build().to(case.dtype), cast_floats(case.inputs(), case.dtype)


def verified_over_gloo(cases: Sequence[Case], timeout_s: float) -> dict[str, list[str]]:
    """By name the problems of models trained by two real processes, which live for all models."""
    found = run_processes(_gloo_rank, GLOO_RANKS, (tuple(cases),), timeout_s=timeout_s)
    problems = {}
    for case in cases:
        model, _ = made(case)
        _, references, bounds = found[0]
        reports = [reports[case.name] for reports, _, _ in found]
        result = summarise(reports, references[case.name], model, bounds[case.name])
        problems[case.name] = result["problems"]
    return problems


def _gloo_rank(rank: int, cases: Sequence[Case]) -> tuple[dict[str, Any], ...]:
    communicators = communicators_of(init_device_mesh("cpu", (GLOO_RANKS,), mesh_dim_names=("tp",)))
    reports, references, bounds = {}, {}, {}
    for case in cases:
        model, inputs = made(case)
        with only_known_warnings():
            subject = subject_of(model, inputs, "train", None)
            plan = plan_for(subject, model, GLOO_RANKS)  # equal on all ranks: planning is deterministic
            references[case.name] = reference_of(subject.module, subject.run, "train")
            bounds[case.name] = bound_of(subject.captured)
            origin = Source(subject.module, subject.captured, plan)
            reports[case.name] = rank_report(subject, plan, rank, communicators, references[case.name], origin)
    return reports, references, bounds


@contextmanager
def only_known_warnings() -> Iterator[None]:
    """Warnings are errors, but for those of the models' own code and of operators without a rule, which are listed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="torch")
        warnings.filterwarnings("ignore", message="no rule for")
        yield

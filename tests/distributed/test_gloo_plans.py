"""Real plans over real process groups: right numbers, and the process groups see just the collectives that are priced."""

import pytest
import torch
import torch.distributed as dist
from test_matrix import planned_for, subject
from torch.utils._python_dispatch import TorchDispatchMode
from traces import Sent, check_prices, planned

from autotp.plan_file import dumps, loads
from autotp.rewrite.parallelize import build_module
from autotp.runtime.communicator import init_mesh
from autotp.runtime.spawn import run_processes
from autotp.runtime.verify import summarise, verify_rank

pytestmark = pytest.mark.distributed
NUM_RANKS = 4
JOBS = [
    ("uneven", "tp=4", "train"),
    ("resnet", "dp=2,tp=2", "train"),
    ("moe", "dp=2,tp=2", "train"),
    ("mlp", "tp=4", "infer"),
]
NAMES = {
    "allreduce_": "all_reduce",
    "_allgather_base_": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "alltoall_base_": "all_to_all",
}


class Intercept(TorchDispatchMode):
    """Writes down every operator that reaches a process group, forward and backward, whoever calls it."""

    def __init__(self, axes):
        super().__init__()
        self.axes, self.calls = axes, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.namespace in ("_c10d_functional", "c10d"):
            group = dist.ProcessGroup.unbox(next(arg for arg in args if isinstance(arg, torch.ScriptObject)))
            # what is gathered, and what is reduced or sent: the larger of a result and an operand
            tensors = [
                x for arg in args for x in (arg if isinstance(arg, list) else [arg]) if isinstance(x, torch.Tensor)
            ]
            whole = max(tensors, key=torch.Tensor.numel) if func._opname != "alltoall_base_" else args[1]
            self.calls.append(
                Sent(NAMES[func._opname], self.axes[group.group_name], whole.element_size(), whole.numel())
            )
        return result


def rank_main(rank, jobs):
    found = []
    for name, mode, text in jobs:
        captured, flat, reference = subject(name, mode)
        plan = loads(text)
        device_mesh = init_mesh(plan.mesh)
        module = build_module(captured, plan, device_mesh)
        axes = {device_mesh.get_group(axis).group_name: axis for axis in plan.mesh.names}
        seen = Intercept(axes)
        forward = []

        def run(m, flat=flat, seen=seen, forward=forward):
            outputs = m.graph_module(*flat)
            forward.extend(seen.calls)
            return outputs

        with seen:
            report = verify_rank(module, run, reference)
        found.append((report, forward, seen.calls[len(forward) :]))
    dist.barrier()
    return found


def test_the_process_groups_see_what_the_plan_prices():
    plans = [planned_for(name, mesh, mode, objective="memory", gap=1.0) for name, mesh, mode in JOBS]
    jobs = [(name, mode, dumps(plan)) for (name, _, mode), plan in zip(JOBS, plans, strict=True)]
    results = run_processes(rank_main, NUM_RANKS, (jobs,), timeout_s=200)
    for (name, _, mode), plan, ranks in zip(JOBS, plans, zip(*results, strict=True), strict=True):
        captured, _, reference = subject(name, mode)
        check_prices(captured.graph, plan)
        reports, forward, backward = zip(*ranks, strict=True)
        summary = summarise(reports, reference, captured.module)
        assert summary["ok"] and max(summary["max_relative_error"].values()) < 1e-5, (name, summary)
        for rank in range(NUM_RANKS):
            expected = planned(captured.graph, plan, rank)
            for seen, priced in zip((forward[rank], backward[rank]), expected, strict=True):
                assert sorted(seen) == sorted(priced.elements()), (name, rank)
            in_order = [[call[:3] for call in calls] for calls in (forward[rank], backward[rank])]
            assert in_order == [[call[:3] for call in calls] for calls in (forward[0], backward[0])]
        assert forward[0] and bool(backward[0]) == (mode == "train")
    shapes = {x for parameter in plans[0].parameters.values() for x in zip(*parameter.local_shapes, strict=True)}
    assert any(len(set(sizes)) > 1 for sizes in shapes), "no parameter is divided unequally"


def test_the_same_weights_everywhere():
    """Else comparing over processes would prove nothing."""
    subject.cache_clear()
    first = subject("mlp", "train")[2].state
    subject.cache_clear()
    assert all(torch.equal(x, first[name]) for name, x in subject("mlp", "train")[2].state.items())

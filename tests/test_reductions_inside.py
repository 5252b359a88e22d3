"""Reductions over cut dims inside a model: right under any plan, and what they send is what is priced."""

import pytest
import torch
from random_plans import random_plan
from torch import nn
from traces import check_issued, record

from autotp.capture.export import capture
from autotp.mesh import Mesh
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.simulate import run_ranks
from autotp.runtime.verify import reference_of, summarise, verify_rank

REDUCING = ("amax", "amin", "max", "min", "var", "std", "var_mean", "linalg_vector_norm", "logsumexp", "argmax", "any")


class Reduced(nn.Module):
    """Every kind, of what a trained layer makes; what makes no gradient is returned."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 12)

    def forward(self, x):
        y = self.layer(x)
        value, place = y.max(-1)
        spread, mean = torch.var_mean(y, (0, 2), correction=1)
        scaled = y / (y.std(-1, keepdim=True) + 1) + y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        total = scaled.sum() + y.amax(1).sum() + y.amin((0, 1), keepdim=True).sum() + torch.logsumexp(y, -1).sum()
        total = total + (value * mean[:, None].T[:, : value.shape[1]]).sum() + spread.var() + y.min() + y.max()
        return total, place, (y > 0.5).any(-1), (y > -9).all(0), y.argmin(0)


def choose(picks):
    """Reductions are cut along what they reduce, in turn; all else by chance."""

    def chosen(node, found):
        inside = [s for s in found if node.short_op in REDUCING and any(c.kind == "cut" for c in s.choices)]
        picks[0] += bool(inside)
        return inside[picks[0] % len(inside)] if inside else None

    return chosen


@pytest.mark.parametrize("mesh", ["tp=2", "tp=3", "dp=2,tp=2"])
def test_any_plan_is_right_and_sends_what_is_priced(mesh):
    torch.manual_seed(0)
    model, inputs = Reduced().double(), {"x": torch.randn(4, 6, 5, dtype=torch.float64)}
    captured = capture(model, inputs)
    flat = captured.flatten_inputs((), inputs)
    whole = reference_of(captured.module, lambda module: module(*flat), "train")
    sent = set()
    for seed in range(6):
        plan = random_plan(captured, Mesh.parse(mesh), seed, choose=choose([seed]))

        def rank_main(rank, communicators, plan=plan):
            module = build_for_rank(captured, plan, rank, communicators)
            trace, forward = record(communicators), []

            def run(m):
                found = m.graph_module(*flat)
                forward.extend(trace)
                return found

            report = verify_rank(module, run, whole)
            check_issued(captured.graph, plan, rank, forward, trace[len(forward) :])
            names = {name for name, _ in module.graph_module.named_children()}
            return report, {kind for kind in ("extreme", "place", "moments", "norm", "logsumexp")
                            if any(name.endswith(f"_{kind}_shard") for name in names)}  # fmt: skip

        reports, kinds = zip(*run_ranks(plan.mesh, rank_main), strict=True)
        found = summarise(reports, whole, captured.module)
        assert found["ok"], found["problems"]
        sent |= kinds[0]
    assert sent == {"extreme", "place", "moments", "norm", "logsumexp"}

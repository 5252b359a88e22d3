"""Dropout by itself: the same draws where the operand is replicated, others where it is split, and as many as asked."""

import pytest
import torch
from random_plans import random_plan
from torch import nn
from torch.utils.checkpoint import checkpoint

from autotp.api import as_cluster
from autotp.capture.export import capture
from autotp.cost.training import Training
from autotp.errors import AutoTPError
from autotp.mesh import Mesh
from autotp.placement import held_spans
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.local_ops import set_base_seed
from autotp.runtime.simulate import run_ranks

ROWS, COLUMNS, P = 96, 64, 0.25


class Dropped(nn.Module):
    """What is kept shows in the result, and again in the gradient."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(ROWS, COLUMNS))

    def forward(self, x):
        return nn.functional.dropout(self.weight * x, P, training=True)


def placed(node, strategies, wanted):
    """The dropout as wanted (a dim of the first axis to cut, or None); all else whole."""
    if node.short_op != "dropout":
        return strategies[0]
    for strategy in strategies:
        first, *rest = strategy.results[0]
        if all(state.kind == "R" for state in rest) and strategy.choices[0].kind in ("cut", "whole"):
            if wanted is None and first.kind == "R":
                return strategy
            if first.kind == "S" and first.dim == wanted:
                return strategy
    raise AssertionError("there is no such strategy")


def draws(mesh, wanted, *, seeds=(0,), num_calls=2):
    """Per rank, for every seed and call, the elements it kept (of the part it has) forward and backward."""
    captured = capture(Dropped(), {"x": torch.ones(ROWS, COLUMNS)})
    plan = random_plan(captured, mesh, choose=lambda node, found: placed(node, found, wanted))

    def run(rank, communicators):
        torch.manual_seed(rank)  # however the ranks seeded their generators
        module = build_for_rank(captured, plan, rank, communicators)
        found = []
        for seed in seeds:
            set_base_seed(module.graph_module, seed)
            for _ in range(num_calls):
                module.zero_grad()
                result = module(torch.ones(ROWS, COLUMNS))
                result.sum().backward()
                torch.testing.assert_close(result, module.weight.grad)  # what is kept is scaled alike, both ways
                found.append(result.detach())
        return found

    placement = next(s.results[0] for name, s in plan.strategies.items() if "dropout" in name)
    return run_ranks(mesh, run), placement


def local(x, placement, coordinates):
    for dim in range(2):
        spans = held_spans(x.shape[dim], dim, placement, coordinates)
        x = torch.cat([x.narrow(dim, start, length) for start, length in spans], dim)
    return x


@pytest.mark.parametrize("wanted", [None, 0, 1])
@pytest.mark.parametrize("mesh", ["tp=2", "tp=3", "tp=2,dp=2"])
def test_draws_agree_between_ranks_and_differ_between_parts_and_calls(mesh, wanted):
    axes = Mesh.parse(mesh)
    found, placement = draws(axes, wanted)
    for results in zip(*found, strict=True):
        for other in results[1:]:
            assert torch.equal(results[0], other)  # the whole result is the same on every rank
    first, second = found[0]
    assert not torch.equal(first, second)  # every call draws anew
    if wanted is not None:
        parts = [local(first, placement, axes.coordinates(rank)) for rank in range(axes.num_ranks)]
        different = {parts[rank].numpy().tobytes() for rank in range(axes.num_ranks)}
        assert len(different) == axes.sizes[0]  # ranks with the same part drew the same


@pytest.mark.parametrize("wanted", [None, 0, 1])
def test_as_many_are_dropped_as_asked_and_all_places_alike(wanted):
    found, _ = draws(Mesh.parse("tp=2"), wanted, seeds=range(8), num_calls=4)
    kept = torch.stack(found[0]).ne(0).double()
    num = kept.numel()
    assert abs(kept.mean().item() - (1 - P)) < 5 * (P * (1 - P) / num) ** 0.5
    values = torch.stack(found[0])
    assert values.unique().tolist() == pytest.approx([0.0, 1 / (1 - P)])
    per_place = kept.mean(0)  # a chance of each place over 32 draws
    assert per_place.std().item() == pytest.approx((P * (1 - P) / len(kept)) ** 0.5, rel=0.1)
    for dim in (0, 1):  # neighbours and parts of one tensor are independent of each other
        halves = kept.chunk(2, dim + 1)
        covariance = ((halves[0] - (1 - P)) * (halves[1] - (1 - P))).mean().item()
        assert abs(covariance) < 5 * P * (1 - P) / (num / 2) ** 0.5


def test_a_seed_gives_the_same_draws_again():
    found, _ = draws(Mesh.parse("tp=2"), 1, seeds=(3, 3, 4))
    first, second, again, once_more, other, _ = found[0]
    assert torch.equal(first, again) and torch.equal(second, once_more)
    assert not torch.equal(first, other)


def rank_gradients(checkpointed, checkpointing="none", **how):
    """Per rank results and gradients, inputs' too, of a part of a model with dropout, called three times before one
    backward, plainly or checkpointed by the user."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.Dropout(P), nn.GELU(), nn.Linear(24, 16), nn.Dropout(P)).double()
    inputs = [torch.randn(8, 16, dtype=torch.float64) for _ in range(2)]
    captured = capture(model, (inputs[0].clone().requires_grad_(),))
    mesh = Mesh.parse("tp=3")
    options = Options(Training(checkpointing=checkpointing), objective="memory")
    plan = make_plan(captured, mesh, as_cluster("cpu"), options, {}).plan

    def rank_main(rank, communicators):
        torch.manual_seed(rank)
        module = build_for_rank(captured, plan, rank, communicators)
        leaves = [x.clone().requires_grad_() for x in inputs]

        def around(x):
            return 2 * module(x)

        results = [checkpoint(around, x, **how) if checkpointed else around(x) for x in leaves]
        results.append(around(leaves[0]))
        sum((k + 1) * result.square().sum() for k, result in enumerate(results)).backward()
        return [*(r.detach() for r in results), *(x.grad for x in leaves), *(p.grad for p in module.parameters())]

    return run_ranks(mesh, rank_main)


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpoint_around_the_module_draws_again_what_it_drew(use_reentrant, checkpointing):
    plain = rank_gradients(False, checkpointing)
    again = rank_gradients(True, checkpointing, use_reentrant=use_reentrant)
    for a, b in zip(plain, again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert not torch.equal(a[0], a[2])  # though every call draws anew


def test_a_checkpoint_that_forgets_the_random_state_is_refused():
    with pytest.raises(AutoTPError, match=r"dropout.*preserve_rng_state=True"):
        rank_gradients(True, use_reentrant=False, preserve_rng_state=False)

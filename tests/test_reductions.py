"""Gradients that are added up beside the backward pass, or once for several micro-batches: no number changes."""

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from random_plans import random_plan
from torch import nn
from torch.nn import functional as F
from traces import record

from autotp.capture.export import capture
from autotp.errors import AutoTPError
from autotp.mesh import Mesh
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.reductions import MAX_IN_FLIGHT, Reductions, _Backward, _Sum
from autotp.runtime.simulate import run_ranks

NUM_MICRO_BATCHES = 3


class Tied(nn.Module):
    """An embedding that is also the last layer, layers between, a frozen one, and one that is used twice."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.norm = nn.LayerNorm(6)
        self.up, self.down, self.frozen = nn.Linear(6, 12), nn.Linear(12, 6), nn.Linear(6, 6)
        self.frozen.requires_grad_(False)

    def forward(self, ids):
        x = self.embedding(ids)
        for _ in range(2):
            x = x + self.down(torch.tanh(self.up(self.norm(self.frozen(x)))))
        return F.linear(self.norm(x), self.embedding.weight)


def captured_model(batch=6):
    torch.manual_seed(0)
    model = Tied().double()
    batches = [torch.randint(0, 10, (batch, 4)) for _ in range(NUM_MICRO_BATCHES)]
    return batches, capture(model, (batches[0],))


def loss_of(module, ids):
    return module(ids).square().mean()


def gradients(captured, plan, rank, communicators, batches, *, overlaps, is_once):
    """By name, after all micro-batches; and what was sent in all their backward passes."""
    module = build_for_rank(captured, plan, rank, communicators)
    module.reductions.overlaps = overlaps
    sent = []
    for number, ids in enumerate(batches):
        is_last = number == len(batches) - 1
        loss = loss_of(module, ids)
        trace = record(communicators)
        with nullcontext() if is_last or not is_once else module.no_sync():
            loss.backward()
        sent.append(list(trace))
    module.reductions.check_reduced()
    assert not module.reductions.held_tensors()
    return {name: p.grad for name, p in module.named_parameters()}, sent


def same(found, expected, tolerance=1e-13):
    for name, gradient in expected.items():
        assert (found[name] is None) == (gradient is None), name
        if gradient is not None:
            scale = 1 + gradient.abs().max() if gradient.numel() else 1
            assert ((found[name] - gradient).abs() <= tolerance * scale).all(), name
            assert found[name].stride() == gradient.stride(), name


@pytest.mark.parametrize(("mesh", "seed"), [(mesh, s) for mesh in ("dp=2", "dp=3", "dp=2,tp=2") for s in range(4)])
def test_no_way_of_reducing_changes_a_gradient(mesh, seed):
    batches, captured = captured_model()
    plan = random_plan(captured, Mesh.parse(mesh), seed)

    def rank_main(rank, communicators):
        found = {
            (overlaps, once): gradients(captured, plan, rank, communicators, batches, overlaps=overlaps, is_once=once)
            for overlaps in (False, True)
            for once in (False, True)
        }
        expected, sent = found[False, False]
        for gradient, _ in found.values():
            same(gradient, expected)
        for number in range(NUM_MICRO_BATCHES):
            assert Counter(found[True, False][1][number]) == Counter(sent[number]), "other collectives"
        for overlaps in (False, True):
            once = found[overlaps, True][1]
            assert Counter(once[-1]) == Counter(sent[-1]), "the last micro-batch sends what each did"
            assert all(len(few) <= len(all_of) for few, all_of in zip(once, sent, strict=True))
        return len(sent[0]), len(found[True, True][1][0])

    counts = run_ranks(plan.mesh, rank_main, timeout_s=60)
    assert len(set(counts)) == 1


def batch_plan(captured, mesh):
    """Every parameter is whole, and every operator that can be is cut by the batch, on the first axis."""

    def choose(node, strategies):
        batched = [s for s in strategies if all(r[0].kind == "S" and r[0].dim == 0 for r in s.results)]
        return batched[0] if batched and node.kind == "op" else strategies[0]

    return random_plan(captured, mesh, 0, choose=choose)


def on_ranks(function):
    batches, captured = captured_model()
    plan = batch_plan(captured, Mesh.parse("dp=2"))

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        return function(module, batches, communicators)

    return run_ranks(plan.mesh, rank_main, timeout_s=60)


def test_sums_are_left_to_the_last_micro_batch():
    def run(module, batches, communicators):
        trace = record(communicators)
        loss = loss_of(module, batches[0])
        trace.clear()
        with module.no_sync():
            loss.backward()
        held = len(trace)
        with pytest.raises(AutoTPError, match="no_sync"):
            module.gradient_norm()
        loss = loss_of(module, batches[1])
        trace.clear()
        loss.backward()
        module.gradient_norm()
        return held, len(trace)

    for held, reduced in on_ranks(run):
        assert (held, reduced) == (0, 7)  # one for every trained parameter


@pytest.mark.parametrize("overlaps", [False, True])
def test_what_was_held_goes_with_the_gradients(overlaps):
    """A step that is given up leaves nothing behind, by whichever of the ways to zero gradients."""

    def run(module, batches, communicators):
        module.reductions.overlaps = overlaps
        loss_of(module, batches[0]).backward()
        expected = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for zero in (module.zero_grad, lambda: module.zero_grad(set_to_none=False), optimizer.zero_grad):
            optimizer.zero_grad()
            with module.no_sync():
                loss_of(module, batches[1]).backward()
            zero()
            loss_of(module, batches[0]).backward()
            same({name: p.grad for name, p in module.named_parameters()}, expected)
        optimizer.zero_grad()
        with module.no_sync():
            loss_of(module, batches[1]).backward()
        optimizer.zero_grad(set_to_none=False)
        with pytest.raises(AutoTPError, match="in place"):
            loss_of(module, batches[0]).backward()

    on_ranks(run)


@pytest.mark.parametrize("overlaps", [False, True])
def test_what_the_last_micro_batch_does_not_reach_is_added_up_all_the_same(overlaps):
    def run(module, batches, communicators):
        module.reductions.overlaps = overlaps
        up = dict(module.named_parameters())["up.weight"]
        loss_of(module, batches[0]).backward()
        expected = up.grad.clone()
        module.zero_grad()
        with module.no_sync():
            loss_of(module, batches[0]).backward()
        weight = dict(module.named_parameters())["norm.weight"]
        loss_of(module, batches[1]).backward(inputs=[weight])
        same({"up": up.grad}, {"up": expected})

    on_ranks(run)


@pytest.mark.parametrize("is_held", [False, True])
def test_who_asks_for_gradients_gets_them_whole(is_held):
    """torch.autograd.grad, hooks of a parameter, and gradients of gradients see no difference."""

    def run(module, batches, communicators):
        parameters = [p for p in module.parameters() if p.requires_grad]
        expected = torch.autograd.grad(loss_of(module, batches[0]), parameters)
        module.reductions.overlaps = True
        with module.no_sync() if is_held else nullcontext():
            found = torch.autograd.grad(loss_of(module, batches[0]), parameters)
        assert all(p.grad is None for p in parameters)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)
        seen = {}
        handles = [
            parameters[0].register_hook(lambda g: seen.update(before=g.clone())),
            parameters[1].register_post_accumulate_grad_hook(lambda p: seen.update(after=p.grad.clone())),
        ]
        loss_of(module, batches[0]).backward()
        assert torch.allclose(seen["before"], expected[0]) and torch.allclose(seen["after"], expected[1])
        for handle in handles:
            handle.remove()
        module.zero_grad()
        loss_of(module, batches[0]).backward(inputs=parameters[2:])
        assert parameters[0].grad is None
        for p, b in zip(parameters[2:], expected[2:], strict=True):
            assert torch.allclose(p.grad, b)

    on_ranks(run)


def test_a_backward_that_fails_leaves_nothing_for_the_next():
    def run(module, batches, communicators):
        module.reductions.overlaps = True
        loss_of(module, batches[0]).backward()
        expected = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        module.zero_grad()

        def fail(gradient):
            raise RuntimeError("on purpose")

        handle = dict(module.named_parameters())["up.bias"].register_hook(fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            loss_of(module, batches[1]).backward()
        handle.remove()
        module.zero_grad()
        loss_of(module, batches[0]).backward()
        same({name: p.grad for name, p in module.named_parameters()}, expected)

    on_ranks(run)


class Counting:
    """A parameter's move whose sums are counted while they are under way."""

    under_way = most = 0

    def begin_back(self, gradient):
        Counting.under_way += 1
        Counting.most = max(Counting.most, Counting.under_way)

        def later():
            Counting.under_way -= 1
            return gradient

        return later


def test_few_sums_are_under_way_at_once():
    leaves = [nn.Parameter(torch.zeros(2)) for _ in range(3 * MAX_IN_FLIGHT)]
    backward = _Backward(0, Reductions(overlaps=True))
    for leaf in leaves:
        backward.add(_Sum(Counting(), torch.ones(2), [], leaf))
    backward.end()
    assert (Counting.under_way, Counting.most) == (0, MAX_IN_FLIGHT + 1)  # one is begun before the oldest is waited for
    assert all(leaf.grad.tolist() == [1.0, 1.0] for leaf in leaves)

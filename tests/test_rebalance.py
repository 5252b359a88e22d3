"""A running module moves between plans: the numbers stay those of the whole model, step by step."""

import copy
import functools
import itertools
from pathlib import Path

import pytest
import torch
from random_plans import random_plan

from autotp.capture.export import capture
from autotp.capture.model_file import load_model
from autotp.cost.training import Training
from autotp.errors import PlanError, VerificationError
from autotp.hardware.catalogue import load_cluster
from autotp.mesh import Mesh
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.rewrite.checkpoint import gather_state_dict
from autotp.rewrite.parallelize import build_for_rank
from autotp.rewrite.rebalance import rebalance
from autotp.runtime.simulate import run_ranks

EXAMPLES = Path(__file__).parents[1] / "examples"
STEPS = 8
OPTIMIZERS = {
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01, amsgrad=True),
    "sgd": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
}


@functools.cache
def subject(name):
    settings = {"nanogpt": {"layers": 1, "heads": 6, "width": 24, "vocab": 50}, "resnet": {"stages": 1, "blocks": 1}}
    source = load_model(str(EXAMPLES / f"{name}.py"), settings[name])
    torch.manual_seed(0)
    model, inputs = source.build().double().train(), source.example_inputs()
    inputs = {k: x.double() if x.is_floating_point() else x for k, x in inputs.items()}
    return model, inputs, capture(model, inputs)


def plans_for(name, mesh):
    _, _, captured = subject(name)
    if name != "resnet":  # whose running statistics a plan by chance would redistribute
        return [random_plan(captured, mesh, seed, split=0.9) for seed in range(STEPS)]
    asked = ({"objective": "memory"}, {"strategy": "replicated"}, {"strategy": "greedy"}, {"objective": "memory"})
    cluster = load_cluster("cpu")
    return 2 * [make_plan(captured, mesh, cluster, Options(Training("train"), **some), {}).plan for some in asked]


def whole_losses(name, optimizer):
    model, inputs, _ = subject(name)
    model = copy.deepcopy(model)
    stepper, losses = OPTIMIZERS[optimizer](model.parameters()), []
    for _ in range(STEPS):
        loss = model(**inputs)
        losses.append(loss.item())
        loss.backward()
        stepper.step()
        stepper.zero_grad()
    return losses, model.state_dict()


@pytest.mark.parametrize("name, optimizer, mesh", [
    ("nanogpt", "adamw", "tp=3"), ("nanogpt", "sgd", "dp=2,tp=2"), ("resnet", "adamw", "tp=3"),
])  # fmt: skip
def test_moving_between_plans_changes_no_number(name, optimizer, mesh):
    expected, state = whole_losses(name, optimizer)
    _, inputs, captured = subject(name)
    axes = Mesh.parse(mesh)
    plans = plans_for(name, axes)

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plans[0], rank, communicators)
        stepper, losses, shapes = OPTIMIZERS[optimizer](module.parameters()), [], []
        parameters = list(module.parameters())
        for step in range(STEPS):
            loss = module(**inputs)
            losses.append(loss.item())
            loss.backward()
            if step % 2:  # with gradients on the way
                rebalance(module, stepper, plans[step])
            stepper.step()
            stepper.zero_grad()
            if not step % 2:
                rebalance(module, stepper, plans[step])
            shapes.append([tuple(p.shape) for p in module.parameters()])
        assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True)), "the optimizer's parameters"
        return losses, gather_state_dict(module), shapes

    for losses, found, shapes in run_ranks(axes, rank_main):
        assert losses == pytest.approx(expected, rel=1e-9)
        assert any(a != b for a, b in itertools.pairwise(shapes)), "nothing ever moved"
        for key, tensor in state.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-7, atol=1e-9)


def test_what_cannot_be_moved_is_refused_and_nothing_changes():
    _, inputs, captured = subject("nanogpt")
    mesh = Mesh.parse("tp=2")
    plans = [random_plan(captured, mesh, seed) for seed in range(3)]

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plans[0], rank, communicators)
        before = {name: p.clone() for name, p in module.named_parameters()}
        with pytest.raises(PlanError, match="different plans"):
            rebalance(module, None, plans[1 + rank])
        with pytest.raises(PlanError, match="same mesh"):
            rebalance(module, None, random_plan(captured, Mesh.parse("tp=3")))
        stepper = torch.optim.SGD(module.parameters(), lr=0.1)
        for parameter in module.parameters():
            stepper.state[parameter]["row"] = torch.zeros(3)
        with pytest.raises(PlanError, match="treat elements alone"):
            rebalance(module, stepper, plans[1])
        assert all(torch.equal(before[name], p) for name, p in module.named_parameters())
        return module(**inputs).item()

    first, second = run_ranks(mesh, rank_main)
    assert first == second


def test_a_rank_that_fails_on_the_way_stops_the_move():
    _, _, captured = subject("nanogpt")
    mesh = Mesh.parse("tp=2")
    plans = [random_plan(captured, mesh, seed) for seed in range(2)]

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plans[0], rank, communicators)
        if rank == 0:
            raise VerificationError("this rank is gone")
        rebalance(module, None, plans[1])

    with pytest.raises(VerificationError, match="is gone"):
        run_ranks(mesh, rank_main)

"""Comparing a small model with itself under the planner's plan and under plans picked by chance."""

from dataclasses import replace

import torch
from random_plans import random_plan

from autotp.capture.build import cast_floats
from autotp.capture.export import capture
from autotp.mesh import Mesh
from autotp.verification import verify


def agrees(model, inputs, *, mesh="tp=2", mode="train", seeds=(0, 1), min_split=None):
    """Assert that the sharded model is the whole one, in float64; at least `min_split` of its matmul FLOPs are divided."""
    model, inputs = model.double(), cast_floats(inputs, torch.float64)
    result = verify(model, inputs, mesh=mesh, mode=mode)
    assert result["ok"], result["problems"]
    if min_split is not None:
        assert result["coverage"]["split_matmul_flops_fraction"] >= min_split
    captured = capture(model.train(mode == "train"), inputs, mode=mode)
    for seed in seeds:
        plan = replace(random_plan(captured, Mesh.parse(mesh), seed), summary={"coverage": {}}, model={"dtype": None})
        result = verify(model, inputs, plan=plan)
        assert result["ok"], (seed, result["problems"])
    return captured


def floats(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(high, *shape, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))

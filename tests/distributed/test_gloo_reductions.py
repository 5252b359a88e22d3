"""Gradients added up beside the backward pass, and once for several micro-batches, over real processes."""

import copy

import pytest
from random_plans import random_plan
from test_reductions import batch_plan, captured_model, gradients, same

from autotp.mesh import Mesh
from autotp.rewrite.parameters import placements_of
from autotp.rewrite.shards import shard_tensor
from autotp.runtime.communicator import communicators_of, init_mesh
from autotp.runtime.spawn import run_processes

pytestmark = pytest.mark.distributed
SEEDS = (0,)  # by chance parameters are whole, in shards that are gathered (ZeRO), or cut for the layers


def rank_main(rank, text):
    mesh = Mesh.parse(text)
    device_mesh = init_mesh(mesh)
    traces, (batches, captured) = [], captured_model()
    whole = copy.deepcopy(captured.module)
    for ids in batches:
        whole(ids)[0].square().mean().backward()
    for plan in (batch_plan(captured, mesh), *(random_plan(captured, mesh, seed) for seed in SEEDS)):
        placements, _ = placements_of(captured.module, plan)
        coordinates = mesh.coordinates(rank)
        expected = {
            name: None if p.grad is None else shard_tensor(p.grad, placements[name], mesh, coordinates).contiguous()
            for name, p in whole.named_parameters()
        }
        for overlaps in (False, True):
            for once in (False, True):
                found, sent = gradients(
                    captured, plan, rank, communicators_of(device_mesh), batches, overlaps=overlaps, is_once=once
                )
                same(found, expected, 1e-12)
                traces.append([[call.collective, call.axis, call.dtype] for one in sent for call in one])
    return traces


@pytest.mark.parametrize("mesh", ["dp=3", "dp=2,tp=2"])
def test_every_way_gives_the_whole_models_gradients_and_ranks_send_alike(mesh):
    found = run_processes(rank_main, Mesh.parse(mesh).num_ranks, (mesh,), timeout_s=120)
    assert all(trace == found[0] for trace in found) and any(found[0])

"""Unequal shards over real processes, padded and in exact sizes: groups of two, three and five gloo ranks."""

import pytest
import torch
import torch.distributed as dist
from placed import cuts, distribute, recombine, table_of

from autotp.mesh import Mesh
from autotp.placement import B, P, R, shard
from autotp.redistribute import EXACT, PADDED, Step
from autotp.runtime.communicator import GroupCommunicator
from autotp.runtime.moves import Redistribute
from autotp.runtime.spawn import run_processes

pytestmark = pytest.mark.distributed
SIZES, SHAPE = (2, 3, 5), (11, 13)


def steps(size):
    """Gathers and sums of every cut, empty shards among them, forward and backward."""
    for dim in range(2):
        for blocks in cuts(SHAPE[dim], size):
            cut = shard(dim, blocks)
            yield from ((cut, R), (cut, B), (P, cut), (R, cut))


def moved(size, rank, communicator, is_exact):
    """Of every step (value, gradient), and what was sent."""
    mesh, found, communicator.trace = Mesh((("tp", size),)), [], []
    for a, b in steps(size):
        step = Step(0, (a,), (b,))
        both = table_of(step)
        by = tuple(EXACT.get(action, PADDED) if is_exact else PADDED for action in both)
        whole = torch.arange(143, dtype=torch.float64).reshape(SHAPE) / 7
        x = distribute(whole, (a,), mesh)[rank].requires_grad_()
        y = Redistribute(step, *both, SHAPE, mesh, rank, communicator, by=by)(x)
        y.backward(distribute(whole * whole, (b,), mesh, "gradient")[rank])
        found.append((y.detach(), x.grad))
    return found, [call.collective for call in communicator.trace]


def rank_main(rank):
    result = {}
    for size in SIZES:
        group = dist.new_group(list(range(size)))
        if rank < size:
            communicator = GroupCommunicator(group, "tp")
            result[size] = [moved(size, rank, communicator, is_exact) for is_exact in (False, True)]
    return result


@pytest.fixture(scope="module")
def results():
    return run_processes(rank_main, max(SIZES), timeout_s=250)


@pytest.mark.parametrize("size", SIZES)
def test_both_ways_are_the_whole_again(results, size):
    mesh, whole = Mesh((("tp", size),)), torch.arange(143, dtype=torch.float64).reshape(SHAPE) / 7
    ranks = [result[size] for result in results if size in result]
    assert len(ranks) == size
    for way in range(2):
        for (a, b), *pairs in zip(steps(size), *(rank[way][0] for rank in ranks), strict=True):
            values, gradients = zip(*pairs, strict=True)
            torch.testing.assert_close(recombine(values, SHAPE, (b,), mesh), whole, rtol=1e-12, atol=1e-12)
            got = recombine(gradients, SHAPE, (a,), mesh, "gradient")
            torch.testing.assert_close(got, whole * whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_they_are_sent_as_asked_for(results, size):
    sent = [[rank[way][1] for rank in (result[size] for result in results if size in result)] for way in range(2)]
    for padded, exact in zip(*sent, strict=True):
        assert {"all_gather", "reduce_scatter"} <= set(padded) <= {"all_gather", "reduce_scatter", "all_reduce"}
        assert not {"all_gather", "reduce_scatter"} & set(exact)
        assert exact == sent[1][0] and exact.count("broadcast") > padded.count("all_gather")

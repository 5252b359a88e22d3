"""Every row of the table of redistributions, forward and backward, on simulated ranks against the whole tensor."""

import itertools

import pytest
import torch
from placed import cuts, distribute, recombine, table_of

from autotp.errors import PlanError, VerificationError
from autotp.mesh import Mesh
from autotp.placement import B, P, R, near_equal, nest, shard
from autotp.redistribute import EXACT, PADDED, TABLE, Step
from autotp.runtime.moves import Redistribute
from autotp.runtime.simulate import run_ranks

SHAPE = (6, 8)
LINE = {size: Mesh((("tp", size),)) for size in (2, 3)}


def run_steps(mesh, shape, placements, values, gradients, traces=None, exact=False):
    """Take every rank's value through placements, one axis at a time; results and, where asked, gradients.

    `exact`: in exact sizes where an action can, else padded.
    """

    def rank_main(rank, communicators):
        for communicator in communicators.values():
            communicator.trace = traces[rank] if traces is not None else None
        x = values[rank].clone().requires_grad_(gradients is not None)
        y = x
        for source, target in itertools.pairwise(placements):
            (axis,) = (i for i in range(len(source)) if source[i] != target[i])
            step = Step(axis, source, target)
            forward, backward = table_of(step)
            backward = backward if gradients is not None else "none"
            by = tuple(EXACT.get(action, PADDED) if exact else PADDED for action in (forward, backward))
            y = Redistribute(step, forward, backward, shape, mesh, rank, communicators[mesh.names[axis]], by=by)(y)
        if gradients is None:
            return y, None
        before = y.detach().clone()
        y.backward(gradients[rank])
        assert torch.equal(y.detach(), before) and torch.equal(x.detach(), values[rank]), "an input was written to"
        return y.detach(), x.grad

    results = run_ranks(mesh, rank_main, timeout_s=20)
    return [y for y, _ in results], [g for _, g in results]


def check(mesh, shape, placements, dtype=torch.float64, tolerance=1e-12, traces=None, exact=False):
    generator = torch.Generator().manual_seed(1)
    whole, gradient = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    y, g = run_steps(
        mesh,
        shape,
        placements,
        distribute(whole, placements[0], mesh),
        distribute(gradient, placements[-1], mesh, "gradient"),
        traces,
        exact,
    )
    for got, wanted in (
        (recombine(y, shape, placements[-1], mesh), whole),
        (recombine(g, shape, placements[0], mesh, "gradient"), gradient),
    ):
        error = (got.double() - wanted.double()).abs().max() if wanted.numel() else 0.0
        assert error <= tolerance, f"{placements}: {error}"


def states(kind, dim, size):
    return (
        [shard(dim, blocks) for blocks in cuts(SHAPE[dim], size)] if kind == "S" else [{"R": R, "P": P, "B": B}[kind]]
    )


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(("source", "target"), [row for row in TABLE if row != ("S", "S")])
def test_rows(source, target, size):
    for dim in range(2) if "S" in (source, target) else [0]:
        for a, b in itertools.product(states(source, dim, size), states(target, dim, size)):
            check(LINE[size], SHAPE, [(a,), (b,)])


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("dim", [0, 1])
def test_gathers_and_sums_in_exact_sizes(dim, size):
    mesh, shape = Mesh((("tp", size),)), (11, 13)
    for blocks in cuts(shape[dim], size):
        cut = shard(dim, blocks)
        for chain in ([(cut,), (R,)], [(cut,), (B,)], [(P,), (cut,)], [(R,), (cut,), (B,)]):
            check(mesh, shape, chain, exact=True)


def test_exact_sizes_of_nested_cuts():
    mesh = Mesh((("dp", 2), ("tp", 3)))
    outer, several = ((5, 8),), ((4, 1), (0, 5), (3, 0))
    for blocks in (outer, several):
        placement = (shard(1, blocks), shard(1, nest(range(1, 4), blocks, 1)))
        for first in range(2):
            between = tuple(B if axis == first else state for axis, state in enumerate(placement))
            check(mesh, (3, 13, 2), [placement, between, (B, B)], exact=True)


def test_a_way_that_an_action_has_not_is_an_error():
    step = Step(0, (shard(0, [(3, 3)]),), (R,))
    with pytest.raises(PlanError, match="all_gather cannot be carried out by 'all_reduce'"):
        Redistribute(step, "all_gather", "slice", SHAPE, LINE[2], 0, None, by=("all_reduce", PADDED))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("dims", [(0, 1), (1, 0), (0, 0), (1, 1)])
def test_all_to_all_between_dims_and_layouts(dims, size):
    for a, b in itertools.product(states("S", dims[0], size), states("S", dims[1], size)):
        if a != b:
            check(LINE[size], SHAPE, [(a,), (b,)])


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("outer", [0, 1])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("end", [R, B])
def test_nested_cuts_of_one_dim_gather_in_any_order(sizes, outer, first, end):
    mesh = Mesh((("dp", sizes[0]), ("tp", sizes[1])))
    shape = (3, 13, 2)
    inner = 1 - outer
    several = {2: ((4, 1), (0, 5), (3, 0)), 3: ((4, 1, 1), (0, 7, 0))}[sizes[outer]]
    for blocks in [(near_equal(13, sizes[outer]),), several]:
        placement = [R, R]
        placement[outer] = shard(1, blocks)
        placement[inner] = shard(1, nest(range(1, sizes[inner] + 1), blocks, 1))
        between, after = list(placement), list(placement)
        between[first] = end
        after = [end, end]
        check(mesh, shape, [tuple(placement), tuple(between), tuple(after)])
        check(mesh, shape, [(R, R), tuple(R if s == end else s for s in between), tuple(placement)])


@pytest.mark.parametrize("sizes", [(2, 2), (2, 3)])
def test_partial_sums_scattered_inside_a_shard(sizes):
    mesh = Mesh((("dp", sizes[0]), ("tp", sizes[1])))
    blocks = ((5,) + (4,) * (sizes[1] - 1),)
    extent = sum(blocks[0])
    inner = shard(0, nest([1] * sizes[0], blocks, 1))
    check(mesh, (extent, 3), [(P, shard(0, blocks)), (inner, shard(0, blocks)), (inner, R), (B, R)])
    check(mesh, (extent, 3), [(P, P), (P, shard(0, blocks)), (inner, shard(0, blocks))])
    check(
        mesh,
        (extent, extent),
        [(inner, shard(0, blocks)), (inner, shard(1, blocks)), (shard(1, inner.blocks), shard(1, blocks))],
    )


def test_move_of_dim_inside_other_axis_shards():
    mesh = Mesh((("dp", 2), ("tp", 3)))
    dp, a, b = shard(0, [(4, 2)]), shard(1, [(3, 1, 4)]), shard(0, nest([2, 1, 1], ((4, 2),), 1))
    check(mesh, SHAPE, [(dp, a), (dp, b), (dp, R)])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_values_without_gradient(dtype):
    mesh = LINE[3]
    whole = torch.arange(48).reshape(SHAPE).remainder(5).to(dtype)
    chain = [R, shard(0, cuts(6, 3)[1]), shard(1, cuts(8, 3)[3]), R, B, shard(1, cuts(8, 3)[2]), R]
    placements = [(state,) for state in chain]
    y, _ = run_steps(mesh, SHAPE, placements, distribute(whole, (R,), mesh), None)
    assert all(torch.equal(local, whole) and local.dtype == dtype for local in y)


def test_integer_sums():
    mesh = LINE[2]
    whole = torch.arange(48).reshape(SHAPE)
    y, _ = run_steps(mesh, SHAPE, [(P,), (R,)], [whole // 3, whole - whole // 3], None)
    assert all(torch.equal(local, whole) for local in y)


def test_bfloat16():
    for chain in ([P, R], [P, shard(1, [(1, 7)]), B], [R, B]):
        check(LINE[2], SHAPE, [(state,) for state in chain], torch.bfloat16, 0.08)


def test_even_gather_of_the_first_dim_copies_nothing():
    def rank_main(rank, communicators):
        gathered = []
        communicator = communicators["tp"]
        gather = communicator.all_gather
        communicator.all_gather = lambda x: gathered.append(gather(x)) or gathered[-1]
        step = Step(0, (shard(0, [(3, 3)]),), (R,))
        y = Redistribute(step, "all_gather", "slice", SHAPE, LINE[2], rank, communicator)(torch.ones(3, 8))
        return y.untyped_storage().data_ptr() == gathered[0].untyped_storage().data_ptr()

    assert run_ranks(LINE[2], rank_main) == [True, True]


def test_trace_is_equal_on_all_ranks():
    traces = [[] for _ in range(3)]
    chain = [P, shard(0, cuts(6, 3)[1]), shard(1, cuts(8, 3)[1]), B]
    check(LINE[3], SHAPE, [(state,) for state in chain], traces=traces)
    names = ["reduce_scatter", "all_to_all", "all_gather", "reduce_scatter", "all_to_all", "all_gather"]
    assert [call.collective for call in traces[0]] == names
    calls = [[(c.collective, c.axis, c.dtype) for c in trace] for trace in traces]
    assert calls[0] == calls[1] == calls[2]


def test_gradient_where_the_plan_has_none_is_an_error():
    def rank_main(rank, communicators):
        step = Step(0, (R,), (B,))
        x = torch.ones(SHAPE, requires_grad=True)
        Redistribute(step, "none", "none", SHAPE, LINE[2], rank, communicators["tp"])(x).sum().backward()

    with pytest.raises(PlanError, match="for which the plan has none"):
        run_ranks(LINE[2], rank_main)


def test_actions_that_are_not_the_tables_are_an_error():
    with pytest.raises(PlanError, match="the plan says"):
        Redistribute(Step(0, (R,), (P,)), "all_reduce", "none", SHAPE, LINE[2], 0, None)


def test_repr_says_what_is_done():
    move = Redistribute(Step(0, (P,), (R,)), "all_reduce", "none", SHAPE, LINE[2], 0, None)
    assert str(move) == "Redistribute(tp: P -> R, forward all_reduce, backward none)"


def test_first_error_of_a_rank_is_raised_and_nobody_waits_for_it():
    def rank_main(rank, communicators):
        if rank == 1:
            raise ValueError("rank 1 is broken")
        return communicators["tp"].all_reduce(torch.ones(2))

    with pytest.raises(ValueError, match="rank 1 is broken"):
        run_ranks(LINE[3], rank_main)


def test_different_collectives_at_once_are_an_error():
    def rank_main(rank, communicators):
        x = torch.ones(2, 2)
        return communicators["tp"].all_reduce(x) if rank else communicators["tp"].all_gather(x)

    with pytest.raises(VerificationError, match="different collectives"):
        run_ranks(LINE[2], rank_main)


def test_a_missing_rank_is_an_error_in_time():
    with pytest.raises(VerificationError, match="do not join"):
        run_ranks(LINE[2], lambda rank, c: c["tp"].all_reduce(torch.ones(2)) if rank else None, timeout_s=0.2)


def test_every_rank_has_its_own_random_state():
    def rank_main(rank, communicators):
        first = torch.rand(3)
        communicators["tp"].all_reduce(first)
        return torch.stack([first, torch.rand(3)])

    torch.manual_seed(5)
    expected = torch.rand(2, 3)
    torch.manual_seed(5)
    assert all(torch.equal(result, expected) for result in run_ranks(LINE[3], rank_main))
    assert torch.equal(torch.rand(2, 3), expected), "the caller's random state was changed"

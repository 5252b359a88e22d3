"""Blocks: which elements of a dim a rank holds, on one axis and on several."""

import itertools
import random

import pytest

from autotp.errors import AutoTPError
from autotp.mesh import Mesh
from autotp.placement import (
    B,
    P,
    R,
    format_placement,
    held_spans,
    intersect,
    is_valid,
    largest_shape,
    local_shape,
    near_equal,
    nest,
    parse_placement,
    restrict,
    shard,
    spans,
    split_blocks,
)


def elements(found: tuple[tuple[int, int], ...]) -> list[int]:
    return [i for start, length in found for i in range(start, start + length)]


@pytest.mark.parametrize(
    ("units", "parts", "sizes"), [(14, 4, (4, 4, 3, 3)), (14, 3, (5, 5, 4)), (8, 3, (3, 3, 2)), (2, 3, (1, 1, 0))]
)
def test_near_equal(units: int, parts: int, sizes: tuple[int, ...]) -> None:
    assert near_equal(units, parts) == sizes


def test_blocks_give_every_rank_its_part_of_every_block() -> None:
    blocks = split_blocks(3, 4, 2, 2)  # three blocks of four granules of two
    assert blocks == ((4, 4),) * 3
    assert elements(spans(blocks, 1)) == [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23]
    assert spans(((2, 0), (0, 2)), 0) == ((0, 2),)
    assert spans(((0, 2), (2, 0)), 1) == ((0, 2),)


def test_intersection_is_that_of_sets() -> None:
    generator = random.Random(0)
    for _ in range(200):
        extent = generator.randint(1, 30)
        rows = []
        for _ in range(2):
            edges = sorted(generator.choices(range(extent + 1), k=generator.choice((2, 4, 6))))
            pairs = zip(edges[::2], edges[1::2], strict=True)
            rows.append(tuple((a, b - a) for a, b in pairs if b > a))
        assert elements(intersect(*rows)) == sorted(set(elements(rows[0])) & set(elements(rows[1])))


@pytest.mark.parametrize("outer", [((6, 6),), ((5, 4, 3),), ((3, 3), (2, 4))])
def test_nested_cuts_partition_the_dim_and_either_axis_can_be_gathered(outer: tuple[tuple[int, ...], ...]) -> None:
    mesh = Mesh((("dp", 2), ("tp", len(outer[0]))))
    inner = nest((1, 1), outer, 1)
    placement = (shard(0, inner), shard(0, outer))
    extent = sum(map(sum, outer))
    held = {c: elements(held_spans(extent, 0, placement, c)) for c in map(mesh.coordinates, range(mesh.num_ranks))}
    assert sorted(itertools.chain.from_iterable(held.values())) == list(range(extent))
    for axis in (0, 1):
        other = placement[1 - axis]
        for fixed in range(mesh.sizes[1 - axis]):
            sets = [held[(i, fixed) if axis == 0 else (fixed, i)] for i in range(mesh.sizes[axis])]
            kept = spans(other.blocks, fixed)
            assert sorted(itertools.chain.from_iterable(sets)) == elements(kept)
            seen = restrict(placement[axis].blocks, kept)
            assert [sum(block[i] for block in seen) for i in range(mesh.sizes[axis])] == [len(s) for s in sets]


def test_local_and_largest_shapes() -> None:
    mesh = Mesh.parse("dp=2,tp=3")
    placement = (shard(0, ((3, 2),)), shard(2, ((3, 3, 2),)))
    shapes = [local_shape((5, 7, 8), placement, mesh.coordinates(rank)) for rank in range(6)]
    assert shapes[0] == (3, 7, 3) and shapes[5] == (2, 7, 2)
    assert largest_shape((5, 7, 8), placement) == (3, 7, 3)
    assert largest_shape((12,), (shard(0, nest((1, 1), ((5, 4, 3),), 1)), shard(0, ((5, 4, 3),)))) == (3,)


def test_text_round_trip_and_validity() -> None:
    placement = (shard(1, ((4, 4, 3, 3),)), shard(0, ((2, 2), (2, 2), (1, 0))), P, B, R)
    text = format_placement(placement)
    assert text == "S(1:4^2,3^2) S(0:2*2^2+1,0) P B R"
    assert parse_placement(text) == placement
    assert is_valid((5, 8), (shard(1, ((4, 4),)),), Mesh.parse("2"))
    assert not is_valid((5, 8), (shard(1, ((4, 3),)),), Mesh.parse("2"))
    with pytest.raises(AutoTPError, match="cannot read"):
        parse_placement("S(0:a)")


def test_mesh_ranks_and_groups() -> None:
    mesh = Mesh.parse("dp=2,tp=3")
    assert [mesh.rank(mesh.coordinates(r)) for r in range(6)] == list(range(6))
    assert mesh.groups(0) == ((0, 3), (1, 4), (2, 5))
    assert mesh.groups(1) == ((0, 1, 2), (3, 4, 5))
    assert Mesh.parse("8") == Mesh((("tp", 8),))
    for wrong in ("", "tp", "tp=0", "tp=2,tp=2", "tp=-1", "=3", "tp=a"):
        with pytest.raises(AutoTPError):
            Mesh.parse(wrong)

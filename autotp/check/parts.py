"""Whole tensors, and what ranks have of them: taken apart and put together by their placements, and compared."""

import itertools
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from autotp.check.sample import is_float
from autotp.errors import VerificationError
from autotp.mesh import Mesh
from autotp.placement import Placement, held_spans, local_shape


@lru_cache(maxsize=1 << 12)
def positions(shape: tuple[int, ...], placement: Placement, coordinates: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Indices of the elements that a rank holds, per dim."""
    held = [held_spans(extent, dim, placement, coordinates) for dim, extent in enumerate(shape)]
    return tuple(
        torch.tensor([i for start, n in spans for i in range(start, start + n)], dtype=torch.long) for spans in held
    )


def part_of(whole: Tensor, placement: Placement, coordinates: tuple[int, ...]) -> Tensor:
    if all(state.kind != "S" for state in placement):
        return whole
    for dim, index in enumerate(positions(tuple(whole.shape), placement, coordinates)):
        if len(index) != whole.shape[dim]:
            whole = whole.index_select(dim, index)
    return whole


def scatter(whole: Tensor | None, placement: Placement, mesh: Mesh, partial: str) -> list[Tensor]:
    """Every rank's tensor; along axes whose state is `partial`, random parts that add up to the whole."""
    if whole is None:
        return []
    whole = whole.detach()
    axes = [axis for axis, state in enumerate(placement) if state.kind == partial]
    keys = list(itertools.product(*(range(mesh.sizes[axis]) for axis in axes)))
    parts = dict.fromkeys(keys, whole)
    if axes:
        if whole.dtype == torch.bool:
            raise VerificationError("a rule that has partial sums of booleans is wrong")
        for key in keys[:-1]:
            parts[key] = torch.randn_like(whole) if is_float(whole) else torch.randint_like(whole, 0, 5)
        parts[keys[-1]] = whole - sum(parts[key] for key in keys[:-1])
    coordinates = [mesh.coordinates(rank) for rank in range(mesh.num_ranks)]
    return [part_of(parts[tuple(c[axis] for axis in axes)], placement, c) for c in coordinates]


def compare(
    whole: Tensor,
    parts: Sequence[Tensor],
    placement: Placement,
    mesh: Mesh,
    partial: str,
    tolerance: float,
    *,
    compared: str = "values",
) -> str:
    """What is wrong with the ranks' parts, put together by their states; empty where nothing is.

    Shards in place, `partial` added, copies equal. `compared`: `"values"`, `"copies"` (with each other alone), `"shapes"`.
    """
    if whole.dtype == torch.uint64:  # of which torch has no sum
        whole, parts = whole.view(torch.int64), [part.view(torch.int64) for part in parts]
    total = torch.zeros(whole.shape, dtype=whole.dtype if whole.dtype != torch.bool else torch.long)
    copies: dict[tuple[int, ...], Tensor] = {}
    for rank, part in enumerate(parts):
        c = mesh.coordinates(rank)
        expected = local_shape(whole.shape, placement, c)
        if tuple(part.shape) != expected:
            return f"rank {rank} has shape {tuple(part.shape)}, not {expected}"
        if part.dtype != whole.dtype:
            return f"rank {rank} has {part.dtype}, not {whole.dtype}"
        copied = [axis for axis, state in enumerate(placement) if state.kind not in ("S", partial)]
        key = tuple(0 if axis in copied else k for axis, k in enumerate(c))
        if key == c:
            copies[key] = part
            if expected == tuple(whole.shape):
                total += part
            else:
                total[torch.meshgrid(*positions(tuple(whole.shape), placement, c), indexing="ij")] += part
        elif compared != "shapes" and (wrong := difference(copies[key], part, tolerance)):
            return f"rank {rank} has another copy: {wrong}"
    return "" if compared != "values" else difference(whole.to(total.dtype), total, tolerance)


MIN_DRAWS = 16  # fewer may be alike by chance


def same_draws(parts: Sequence[Tensor], placement: Placement, mesh: Mesh) -> str:
    """Which ranks drew the same numbers for different parts of a tensor; empty where none did."""
    cut = [axis for axis, state in enumerate(placement) if state.kind == "S"]
    for (a, x), (b, y) in itertools.combinations(enumerate(parts), 2):
        is_other = any(mesh.coordinates(a)[axis] != mesh.coordinates(b)[axis] for axis in cut)
        if is_other and x.shape == y.shape and x.numel() >= MIN_DRAWS and torch.equal(x, y) and x.min() < x.max():
            return f"ranks {a} and {b} draw the same numbers for different parts"
    return ""


def difference(whole: Tensor, found: Tensor, tolerance: float) -> str:
    """How two tensors differ; empty where they agree within the tolerance, relative to the largest finite element."""
    if not is_float(whole):
        return "" if torch.equal(whole, found) else f"other values{_shown(whole, found)}"
    if not torch.equal(whole.isfinite(), found.isfinite()):
        return f"not finite{_shown(whole, found)}"
    finite = whole[whole.isfinite()]
    scale = max(1.0, float(finite.abs().max())) if finite.numel() else 1.0
    if torch.allclose(whole, found, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        return ""
    return f"off by {(whole - found).abs().nan_to_num().max()}{_shown(whole, found)}"


def _shown(whole: Tensor, found: Tensor) -> str:
    return f":\n{found}\ninstead of\n{whole}"

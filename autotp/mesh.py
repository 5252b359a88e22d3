"""A mesh: named axes over ranks, outermost first; the last axis varies fastest and lies inside a node."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from autotp.errors import AutoTPError


@dataclass(frozen=True, slots=True)
class Mesh:
    """Named axes and their sizes, e.g. `Mesh((("dp", 2), ("tp", 4)))`; rank = row-major index of its coordinates."""

    axes: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.axes]
        if not names or len(set(names)) != len(names):
            raise AutoTPError(f"a mesh needs axes with different names, not {names}")
        for name, size in self.axes:
            if not re.fullmatch(r"[A-Za-z_]\w*", name) or size < 1:
                raise AutoTPError(
                    f"mesh axis {name!r} of size {size}: a name and a size of at least 1 are needed, as in tp=4"
                )

    @classmethod
    def parse(cls, text: str) -> "Mesh":
        """`"dp=2,tp=4"` (outermost first) or `"4"`, which means `tp=4`. Raises AutoTPError on anything else."""
        if text.strip().isdigit():
            return cls((("tp", int(text)),))
        pairs = [re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=\s*(\d+)\s*", part) for part in text.split(",")]
        if not all(pairs):
            raise AutoTPError(f"cannot read the mesh {text!r}: write it as tp=8 or dp=2,tp=4, outermost axis first")
        return cls(tuple((pair[1], int(pair[2])) for pair in pairs if pair))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.axes)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.axes)

    @property
    def num_ranks(self) -> int:
        return math.prod(self.sizes)

    def stride(self, axis: int) -> int:
        """Distance in ranks between neighbours along an axis."""
        return math.prod(self.sizes[axis + 1 :])

    def coordinates(self, rank: int) -> tuple[int, ...]:
        """Position of a rank on every axis."""
        return tuple(rank // self.stride(axis) % size for axis, size in enumerate(self.sizes))

    def rank(self, coordinates: Sequence[int]) -> int:
        return sum(c * self.stride(axis) for axis, c in enumerate(coordinates))

    def groups(self, axis: int) -> tuple[tuple[int, ...], ...]:
        """Every group of ranks that differ only along `axis`, in rank order: the communicators of that axis."""
        size, stride = self.sizes[axis], self.stride(axis)
        firsts = [r for r in range(self.num_ranks) if self.coordinates(r)[axis] == 0]
        return tuple(tuple(first + i * stride for i in range(size)) for first in firsts)

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in self.axes)

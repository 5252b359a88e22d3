"""Equal rows of repeated layers as one: `model.layers.0..31.mlp`."""

import itertools
import math
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Folded(Generic[T]):
    """`count` paths that differ only in their indices and have equal content."""

    path: str
    content: T
    count: int


def fold_rows(rows: Iterable[tuple[str, T]]) -> list[Folded[T]]:
    """Rows of equal content whose paths differ in their indices only become one, at the first one's place."""
    groups: dict[tuple[str, T], list[tuple[int, ...]]] = {}
    for path, content in rows:
        indices = tuple(int(index) for index in _INDEX.findall(path))
        groups.setdefault((_INDEX.sub("{}", path), content), []).append(indices)
    return [Folded(_name(shape, found), content, len(found)) for (shape, content), found in groups.items()]


_INDEX = re.compile(r"(?:(?<=\.)|^)\d+(?=\.|$)")


def _name(shape: str, indices: list[tuple[int, ...]]) -> str:
    columns = [sorted(set(column)) for column in zip(*indices, strict=True)]
    name = shape.format(*map(_ranges, columns))
    # Indices that do not form a grid are counted, since their ranges alone would claim too much.
    return name if len(set(indices)) == math.prod(map(len, columns)) else f"{name} ({len(set(indices))} of these)"


def _ranges(values: list[int]) -> str:
    """`[0, 1, 2, 5]` to `0..2,5`."""
    parts = []
    for _, run in itertools.groupby(enumerate(values), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        parts.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]}")
    return ",".join(parts)

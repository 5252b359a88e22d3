"""The groups that the axes of a mesh can form: as many ranks as it has, so and so far apart."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    """The groups of a mesh axis of `size` ranks that are `stride` apart; all of them talk at once, as in a step."""

    size: int
    stride: int

    def __str__(self) -> str:
        return f"{self.size}x{self.stride}"

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        size, _, stride = text.partition("x")
        return cls(int(size), int(stride))

    def groups(self, num_ranks: int) -> list[list[int]]:
        """The whole groups among the ranks, in rank order."""
        span = self.size * self.stride
        return [
            [start + offset + i * self.stride for i in range(self.size)]
            for start in range(0, num_ranks - span + 1, span)
            for offset in range(self.stride)
        ]

    def spans_nodes(self, num_ranks: int, ranks_per_node: int) -> bool:
        """Whether any of its groups has ranks on several nodes."""
        return any(len({rank // ranks_per_node for rank in group}) > 1 for group in self.groups(num_ranks))


def patterns(num_ranks: int, ranks_per_node: int, *, is_full: bool) -> list[Pattern]:
    """Neighbours, inside a node, across nodes, whole; if full every size and stride that a mesh of all ranks can have."""
    found = [
        Pattern(2, 1), Pattern(ranks_per_node, 1), Pattern(num_ranks // ranks_per_node, ranks_per_node),
        Pattern(num_ranks, 1),
    ]  # fmt: skip
    if is_full:
        found += [Pattern(size, 1) for size in range(3, min(num_ranks, 8))]
        divisors = [size for size in range(1, num_ranks + 1) if num_ranks % size == 0]
        found += [Pattern(size, stride) for size in divisors for stride in divisors if num_ranks % (size * stride) == 0]
    usable = [pattern for pattern in found if pattern.size > 1 and pattern.size * pattern.stride <= num_ranks]
    return list(dict.fromkeys(usable))

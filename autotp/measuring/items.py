"""What is measured for a profile, in which order, and how often."""

from collections.abc import Iterable
from dataclasses import dataclass

from autotp.hardware.patterns import Pattern, patterns
from autotp.hardware.profile import COLLECTIVES
from autotp.measuring.samples import OPERATORS

KB = 2**10
SEND_RECV = "send_recv"
PLAIN = ("float32", "bfloat16", "float16")  # what all operators take


BATCHED = ((64, 128, 128, 64), (16, 512, 512, 64), (16, 512, 64, 512))
ATTENTION = ((4, 8, 128, 64), (4, 8, 256, 64), (2, 8, 512, 64))
ATTENTION_GPU = ((4, 32, 512, 128), (2, 32, 2048, 128), (1, 32, 8192, 128), (16, 16, 1024, 64))
ROWS = ((16, 64), (64, 1024), (512, 1024), (2048, 2048))
ROWS_GPU = ((16, 64), (512, 4096), (4096, 4096), (8192, 16384))
OPTIMIZER = ((16, 64), (8, 2**20))  # parameters and elements of each: all launches, and more than a cache holds
REFERENCE = (1024, 1024, 1024)  # repeated alone and in every round: what tells a throttled device


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    `least_s`: seconds that calls of one measurement are repeated for, in each round. `products`: m, n, k; `batched`: batch,
    m, n, k; `attention`: batch, heads, sequence, head; `rows`: of memory-bound operators, the smallest first, which is all
    launch; `optimizer`: parameters, and elements of each, likewise.
    """

    name: str
    num_rounds: int
    least_s: float
    budget_s: float
    collective_bytes: tuple[int, ...]
    products: tuple[tuple[int, ...], ...]
    batched: tuple[tuple[int, ...], ...]
    attention: tuple[tuple[int, ...], ...]
    rows: tuple[tuple[int, int], ...]
    dtypes: tuple[str, ...]
    reference: tuple[int, int, int] = REFERENCE
    optimizer: tuple[tuple[int, int], ...] = OPTIMIZER

    @property
    def is_full(self) -> bool:
        return self.name == "full"


def effort_of(device_type: str, *, is_full: bool) -> Effort:
    """The efforts `quick` and `full`, on a CPU, which is slow, or a GPU, whose tiles and waves make steps."""
    if device_type == "cpu":
        return _CPU_FULL if is_full else _CPU_QUICK
    return _GPU_FULL if is_full else _GPU_QUICK


def _grid(rows: Iterable[int], weights: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    rows = tuple(rows)
    return tuple((m, n, k) for n, k in weights for m in rows)


_CPU_WEIGHTS = ((512, 512), (2048, 512), (512, 2048), (1024, 1024), (8192, 512))
_CPU_QUICK = Effort(
    "quick", 5, 0.02, 90.0, tuple(KB * 4**i for i in range(8)), _grid((32, 128, 512, 1024), _CPU_WEIGHTS), BATCHED,
    ATTENTION, ROWS, ("float32",),
)  # fmt: skip
_CPU_FULL = Effort(
    "full", 9, 0.05, 900.0, tuple(KB * 2**i for i in range(17)),
    _grid((1, 8, 32, 64, 128, 256, 512, 1024, 2048), (*_CPU_WEIGHTS, (256, 256), (4096, 1024), (1024, 4096), (2048, 2048))),
    BATCHED, ATTENTION, ROWS, ("float32", "bfloat16", "float16"),
)  # fmt: skip

# both sides of the edges of tiles of 64, 128 and 256 rows, and of waves of them on 100 to 150 multiprocessors
_GPU_ROWS = (1, 8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1536, 2048, 3072, 4096, 8192)
_GPU_WEIGHTS = ((1024, 1024), (4096, 1024), (1024, 4096), (4096, 4096), (12288, 4096), (4096, 11008), (8192, 8192))
_GPU_QUICK = Effort(
    "quick", 5, 0.01, 180.0, tuple(KB * 4**i for i in range(10)), _grid(_GPU_ROWS[2::2], _GPU_WEIGHTS), BATCHED,
    ATTENTION_GPU, ROWS_GPU, ("bfloat16", "float16", "float32", "tfloat32"),
)  # fmt: skip
_GPU_FULL = Effort(
    "full", 9, 0.02, 1800.0, tuple(KB * 2**i for i in range(21)),
    _grid(
        sorted({*_GPU_ROWS, *range(64, 2049, 64)}),
        (*_GPU_WEIGHTS, (2048, 2048), (28672, 8192), (8192, 28672), (5120, 5120), (32000, 4096), (6144, 6144)),
    ),
    BATCHED, ATTENTION_GPU, ROWS_GPU, ("bfloat16", "float16", "float32", "tfloat32", "float8_e4m3fn"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One measurement. `arguments` are those of a function of `samples`, or a pattern and bytes.

    `alone`: the ranks take turns, else all are busy at once, as in a step.
    """

    kind: str
    arguments: tuple[str | int, ...]
    alone: bool = False

    @property
    def key(self) -> str:
        return "/".join(map(str, (self.kind, *self.arguments, *(("alone",) if self.alone else ()))))


def items_of(effort: Effort, num_ranks: int, ranks_per_node: int) -> list[Item]:
    """Everything, what a plan needs most first."""
    first, *others = effort.dtypes
    found = [Item("product", (first, *effort.reference)), Item("product", (first, *effort.reference), alone=True)]
    found += [
        Item("collective", (kind, str(pattern), num_bytes))
        for pattern in patterns(num_ranks, ranks_per_node, is_full=effort.is_full)
        for kind in (*COLLECTIVES, SEND_RECV)
        for num_bytes in effort.collective_bytes
    ]
    found += [Item("product", (first, *shape)) for shape in effort.products]
    found += [Item("memory_bound", (op, first, *shape)) for op in OPERATORS for shape in effort.rows]
    found += [Item("attention", (first, *shape)) for shape in effort.attention]
    found += [Item("batched", (first, *shape)) for shape in effort.batched]
    found += [Item("memory_bound", ("add", first, *effort.rows[-1]), alone=True)]
    found += [Item("attention", (first, *effort.attention[-1]), alone=True)]
    found += [Item("optimizer", (name, first, *sizes)) for name in ("adamw", "sgd") for sizes in effort.optimizer]
    found += [Item("host", ("float32",))]
    for dtype in others:
        found += [Item("product", (dtype, *shape)) for shape in effort.products]
        if dtype in PLAIN:
            found += [Item("memory_bound", (op, dtype, *effort.rows[-2])) for op in OPERATORS]
            found += [Item("attention", (dtype, *effort.attention[-1]))]
    return list(dict.fromkeys(found))


def pattern_of(item: Item) -> Pattern:
    return Pattern.parse(str(item.arguments[1]))

"""What was measured of a contender, what is demanded of it, and how it is shown."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

WHOLE = "one process"
HANDWRITTEN = "hand-written Megatron"
DTENSOR = "DTensor"
TRANSFORMERS = "transformers"
OURS_MEGATRON = "autotp, Megatron's plan"
OURS_OPTIMAL = "autotp, optimal plan"

MAX_RATIO = 1.05  # of our CPU time to the hand-written module's, for the same plan
MAX_ERROR = 1e-4


@dataclass(frozen=True)
class Row:
    """A contender doing one kind of step. Seconds: the least of all rounds, of the slowest rank; per rank and step.

    `max_error`: of the logits for `forward`, else of the loss and the norms' gradients, against the whole model; the
    larger of both, gradients relative to the largest one. Bytes: what a ring sends.
    """

    contender: str
    shape: str
    kind: str
    cpu_s: float
    wall_s: float
    num_rounds: int
    max_error: float
    num_collectives: int
    forward_bytes: float
    backward_bytes: float


def failures(rows: Sequence[Row]) -> list[str]:
    """What falls short, one sentence each; empty if all is well. Contenders that did not run are not compared with."""
    found = []
    for row in rows:
        if not row.max_error <= MAX_ERROR:
            found.append(f"{row.contender} at {row.shape}, {row.kind}, is wrong by {row.max_error:.2g}")
    for (shape, kind), at in _by_setting(rows).items():
        ours = at.get(OURS_MEGATRON)
        if ours is None:
            continue
        for name, most in ((HANDWRITTEN, MAX_RATIO), (DTENSOR, 1.0), (TRANSFORMERS, 1.0)):
            if name not in at:
                continue
            ratio = ours.cpu_s / at[name].cpu_s
            if not ratio <= most:
                found.append(
                    f"{ours.contender} at {shape}, {kind}: {ratio:.3f} times the CPU time of {name}, not {most}"
                )
            if ours.backward_bytes > at[name].backward_bytes:
                sent = f"{ours.backward_bytes:.0f} bytes, {name} {at[name].backward_bytes:.0f}"
                found.append(f"{ours.contender} at {shape}, {kind}, sends more in backward: {sent}")
    return found


def _by_setting(rows: Sequence[Row]) -> Mapping[tuple[str, str], Mapping[str, Row]]:
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.shape, row.kind), {})[row.contender] = row
    return found


def table(rows: Sequence[Row]) -> Table:
    """All rows, with CPU time as a multiple of the hand-written module's."""
    shown = Table(title="One step, per rank: the least of all rounds")
    shown.add_column("tokens, step")
    shown.add_column("contender")
    for name in ("CPU ms", "ratio", "wall ms", "collectives", "forward MiB", "backward MiB", "max error", "rounds"):
        shown.add_column(name, justify="right")
    for (shape, kind), at in _by_setting(rows).items():
        base = at[HANDWRITTEN].cpu_s if HANDWRITTEN in at else math.nan
        for row in at.values():
            shown.add_row(
                f"{shape} {kind}", row.contender, f"{row.cpu_s * 1e3:.2f}", f"{row.cpu_s / base:.3f}",
                f"{row.wall_s * 1e3:.2f}", str(row.num_collectives), f"{row.forward_bytes / 2**20:.2f}",
                f"{row.backward_bytes / 2**20:.2f}", f"{row.max_error:.1e}", str(row.num_rounds),
            )  # fmt: skip
        shown.add_section()
    return shown

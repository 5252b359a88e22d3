"""A step's events as how busy a stream is, moment by moment: what a drawing of some hundred pixels can show."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autotp.plans import Plan
from autotp.report.layers import fold_rows
from autotp.timeline import Event, Timeline, timelines

STEPS = 20  # in which a share is drawn: finer ones nobody sees, and equal neighbours are one
MAX_KINDS = 4  # of devices that are drawn, the busiest first

Floats = npt.NDArray[np.float64]


def busy(events: Sequence[Event], end_s: float, num_moments: int) -> Floats:
    """Share of each of `num_moments` equal parts of `end_s` seconds during which one of the events of a stream runs."""
    ordered = sorted(events, key=lambda event: event.start_s)
    times = np.array([t for event in ordered for t in (event.start_s, event.end_s)], dtype=np.float64)
    if not len(times) or not end_s:
        return np.zeros(num_moments)
    ran_s = np.repeat(np.cumsum([0.0, *(event.duration_s for event in ordered)]), 2)[1:-1]
    edges = np.linspace(0.0, end_s, num_moments + 1)
    shares = np.diff(np.interp(edges, times, ran_s)) / (end_s / num_moments)
    return np.asarray(np.clip(shares, 0.0, 1.0), dtype=np.float64)


def outline(shares: Floats, end_s: float) -> tuple[Floats, Floats]:
    """(seconds, shares) where the share, in coarse steps, changes, and the end: a staircase of few corners."""
    coarse = np.round(shares * STEPS) / STEPS
    kept = np.flatnonzero(np.diff(coarse, prepend=-1.0))
    times = np.append(kept * (end_s / len(shares)), end_s)
    return times, np.append(coarse[kept], coarse[-1])


def shown_timelines(plan: Plan) -> list[Timeline]:
    """Those that are drawn: the busiest kinds of ranks."""
    return sorted(timelines(plan), key=lambda one: -one.busy_share)[:MAX_KINDS]


def words_of(plan: Plan, one: Timeline) -> str:
    """Whose timeline it is: `H100, each of 8` or `H100, ranks 0..3,6`."""
    device = plan.cluster["devices"][one.ranks[0]]
    if len(one.ranks) == plan.mesh.num_ranks:
        return f"{device}, each of {len(one.ranks)}" if len(one.ranks) > 1 else str(device)
    ranks = fold_rows([(str(rank), "") for rank in one.ranks])[0].path
    return f"{device}, rank{'s' if len(one.ranks) > 1 else ''} {ranks}"

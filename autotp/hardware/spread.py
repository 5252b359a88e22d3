"""How much repeated measurements differ, and what that says of the device."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

OUTLIER = 1.5  # times the median: further off than noise of a quiet machine
DRIFT = 1.1  # the last rounds over the first
NOISE = 0.15  # quartile distance over the median
UNLIKE = 1.2  # ratio of medians of ranks on one kind of device
ENOUGH = 3  # rounds, without which noise cannot be told from a device


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one measurement over its rounds. `spread`: the distance between quartiles over the median.

    What takes no time (the backward of what has none) has neither spread nor drift.
    """

    median_s: float
    spread: float
    num_outliers: int
    drift: float  # median of the last third of the rounds over that of the first

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        middle = statistics.median(seconds)
        if len(seconds) < 3 or not min(seconds) > 0:
            return cls(middle, 0.0, 0, 1.0)
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
        third = max(1, len(seconds) // 3)
        drift = statistics.median(seconds[-third:]) / statistics.median(seconds[:third])
        return cls(middle, (high - low) / middle, sum(s > OUTLIER * middle for s in seconds), drift)


def complaints(name: str, reference: Spread) -> list[str]:
    """What a product that was repeated in every round says of a rank's device."""
    found = []
    if reference.drift > DRIFT:
        found.append(f"{name} became {reference.drift - 1:.0%} slower while it was measured: is it throttled?")
    if reference.spread > NOISE or reference.num_outliers:
        found.append(
            f"{name} needs {reference.spread:.0%} more or less for the same product ({reference.num_outliers} outliers): "
            "is it shared with others?"
        )
    return found


def kinds_by_speed(names: Sequence[str], references: Sequence[Sequence[float]]) -> list[str]:
    """A name per rank: ranks on devices of one name, of which some are slower beyond their noise, are kept apart.

    `references`: by rank, seconds of one product in every round.
    """
    found = list(names)
    for name in dict.fromkeys(names):
        ranks = [rank for rank, each in enumerate(names) if each == name and len(references[rank]) >= ENOUGH]
        if not ranks:
            continue
        fastest = min(ranks, key=lambda rank: statistics.median(references[rank]))
        for rank in ranks:
            is_slower = statistics.median(references[rank]) > UNLIKE * statistics.median(references[fastest])
            if is_slower and min(references[rank]) > statistics.median(references[fastest]) * (1 + NOISE):
                found[rank] = f"{name} (slower, rank {rank})"
    return found

"""Measured times of collectives become links: the points themselves, and straight lines for what they do not span."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotp.hardware.profile import COLLECTIVES

Floats = NDArray[np.float64]
Points = Mapping[float, float]  # bytes, as nccl-tests counts them -> seconds
BySize = Mapping[int, Points]  # by number of ranks

# Bytes on the busiest link per byte of size (nccl-tests' PERFORMANCE.md): a ring moves n - 1 of n parts, or twice.
BUS_SHARES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "all_to_all": 1}


def bus_factor(kind: str, num_ranks: int) -> float:
    """How many bytes cross the busiest link per byte of a collective's size."""
    return BUS_SHARES[kind] * (num_ranks - 1) / num_ranks if kind in BUS_SHARES else 1.0


def fit_line(points: Points) -> tuple[float, float]:
    """(seconds of latency, seconds per byte), both above zero, of the line with the least relative errors.

    Reweighted towards least absolute errors, so that outliers count little.
    """
    num_bytes, seconds = (np.array(each, dtype=np.float64) for each in zip(*sorted(points.items()), strict=True))
    if len(seconds) == 1:
        return 0.0, float(seconds[0] / num_bytes[0])
    matrix = np.stack([1 / seconds, num_bytes / seconds], axis=1)
    weights = np.ones(len(seconds))
    latency = slope = 0.0
    for _ in range(50):
        latency, slope = np.linalg.lstsq(matrix * weights[:, None], weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(matrix @ np.array([latency, slope]) - 1), 1e-3))
    steepest = float((seconds / num_bytes).min())  # no line through the origin lies below all points but this one
    if slope <= 0:
        return float(np.median(seconds)), steepest
    return max(float(latency), 0.0), float(slope)


def collective_json(kind: str, by_size: BySize) -> dict[str, Any]:
    """A `collective` of schema.json: lines by group size, the points, and what a further rank adds to the latency.

    That is the slope of the latency between the smallest and the largest group; of one size alone its share per rank.
    """
    sizes = sorted(by_size)
    lines = [fit_line(by_size[size]) for size in sizes]
    latency = [each for each, _ in lines]
    spans = sizes[-1] - sizes[0]
    added = max(0.0, (latency[-1] - latency[0]) / spans) if spans else latency[0] / sizes[0]
    points = {
        str(size): {
            "num_bytes": sorted(by_size[size]),
            "time_s": [by_size[size][each] for each in sorted(by_size[size])],
        }
        for size in sizes
        if len(by_size[size]) > 1
    }
    return {
        "num_ranks": sizes,
        "latency_s": latency,
        "bus_bytes_per_s": [bus_factor(kind, size) / slope for size, (_, slope) in zip(sizes, lines, strict=True)],
        "added_rank_s": added,
        **({"points": points} if points else {}),
    }


def link_json(kind: str, measured: Mapping[str, BySize], source: str, date: str) -> dict[str, Any]:
    """A `link` of schema.json. Collectives that were not measured move as all_reduce does, on the same bus bandwidth."""
    collectives = {name: collective_json(name, by_size) for name, by_size in measured.items()}
    missing = [name for name in COLLECTIVES if name not in collectives]
    for name in missing:
        known = collectives["all_reduce"] if "all_reduce" in collectives else next(iter(collectives.values()))
        collectives[name] = {key: value for key, value in known.items() if key != "points"}
    if missing:
        source += f"; not measured: {', '.join(missing)}, taken from the ring that was (NCCL's tuning model)"
    return {"kind": kind, "collectives": collectives, "source": source, "date": date, "is_measured": True}


def thinned(points: Sequence[tuple[float, float]]) -> dict[float, float]:
    """Points with ascending bytes whose seconds never fall: a larger message that took less time was noise."""
    found: dict[float, float] = {}
    least = 0.0
    for num_bytes, seconds in sorted(points):
        least = max(least, seconds)
        found[num_bytes] = least
    return found

"""Measured curves: matrix products with the steps of tiles and waves, and collectives by size. No torch here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class MatmulCurve:
    """Seconds of a product [m, k] x [k, n] of one dtype on one device.

    A result is cut into tiles, which `num_units` multiprocessors compute in waves, the last of which may be nearly empty
    (NVIDIA's DU-09799, chapter 3: tile and wave quantisation). Of the kernels in `tiles` the fastest is taken:

        arithmetic = ceil(batch · ceil(m / tile_m) · ceil(n / tile_n) / num_units) · (wave flops / rate + wave_s)
        memory     = bytes of both operands and the result / memory_bytes_per_s
        seconds    = (arithmetic^sharpness + memory^sharpness)^(1 / sharpness) · Π scale + launch_s

    `tiles`: (tile_m, tile_n, rate in flops per second of the whole device when all its units run this tile). The sharper
    the nearer to the larger of both. `scales`: ("m", "n" or "k", sizes, factors), interpolated in log-log and constant
    outside, for what tiles do not explain (a CPU has one tile of 1 x 1, one unit, and scales).
    """

    tiles: tuple[tuple[int, int, float], ...]
    num_units: int
    wave_s: float
    memory_bytes_per_s: float
    sharpness: float
    launch_s: float
    scales: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = ()

    def at_speed(self, speed: float) -> "MatmulCurve":
        """The curve of a device that is `speed` times as fast in everything."""
        return replace(
            self, tiles=tuple((m, n, rate * speed) for m, n, rate in self.tiles), wave_s=self.wave_s / speed,
            memory_bytes_per_s=self.memory_bytes_per_s * speed, launch_s=self.launch_s / speed,
        )  # fmt: skip

    def arithmetic_s(self, m: int, n: int, k: int, batch: int = 1) -> float:
        """Seconds of the arithmetic alone, by the fastest kernel."""
        found = math.inf
        for tile_m, tile_n, rate in self.tiles:
            num_waves = -(-batch * -(-m // tile_m) * -(-n // tile_n) // self.num_units)
            found = min(found, num_waves * (2 * tile_m * tile_n * k * self.num_units / rate + self.wave_s))
        return found

    def time_s(self, m: int, n: int, k: int, item_bytes: int, batch: int = 1) -> float:
        """Seconds of `batch` products at once; an empty product takes a launch."""
        if not m * n * k * batch:
            return self.launch_s
        num_bytes = item_bytes * batch * (m * k + k * n + m * n)
        arithmetic_s, memory_s = self.arithmetic_s(m, n, k, batch), num_bytes / self.memory_bytes_per_s
        larger = max(arithmetic_s, memory_s)
        ratio = min(arithmetic_s, memory_s) / larger
        seconds = larger * math.exp(math.log1p(ratio**self.sharpness) / self.sharpness)
        sizes = {"m": m, "n": n, "k": k}
        for name, known, factors in self.scales:
            seconds *= interpolated(sizes[name], known, factors)
        return seconds + self.launch_s


@dataclass(frozen=True)
class CollectivePoints:
    """Measured seconds of a collective in a group of one size, by bytes (nccl-tests' size), both ascending."""

    num_bytes: tuple[float, ...]
    time_s: tuple[float, ...]


def interpolated(x: float, known: Sequence[float], values: Sequence[float]) -> float:
    """A power law between every two neighbours: straight lines in log-log, constant outside."""
    logs, log_values = _logs(tuple(known)), _logs(tuple(values))
    return float(np.exp(np.interp(math.log(x), logs, log_values)))


@lru_cache(maxsize=1 << 12)
def _logs(values: tuple[float, ...]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.log(np.array(values, dtype=np.float64))

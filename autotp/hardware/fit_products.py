"""Measured matrix products become a curve: kernels with tiles on a GPU, rates that follow the sizes on a CPU."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotp.hardware.curves import MatmulCurve

Floats = NDArray[np.float64]
Products = Mapping[tuple[int, int, int], float]  # m, n, k -> seconds

TILES = ((256, 128), (128, 256), (128, 128), (64, 256), (256, 64), (64, 128), (128, 64), (64, 64))
FACTORS = (0.8, 0.9, 0.95, 0.98, 0.99, 1.01, 1.02, 1.05, 1.1, 1.25)
ROUNDS = 6
SHARPNESS = 4.0  # where a fit begins


def fit_cpu(products: Products, item_bytes: int, memory_bytes_per_s: float, launch_s: float) -> MatmulCurve:
    """One unit whose rate is the best that was measured, times a factor of m, one of n and one of k.

    The factors are the least squares of the logarithms at the sizes measured; each is one where it is near the best.
    """
    best = max(2 * m * n * k / max(seconds - launch_s, seconds / 2) for (m, n, k), seconds in products.items())
    plain = MatmulCurve(((1, 1, best),), 1, 0.0, memory_bytes_per_s, SHARPNESS, launch_s)
    sizes = {name: sorted({shape[i] for shape in products}) for i, name in enumerate("mnk")}
    if any(len(known) < 2 for known in sizes.values()):
        return plain
    columns = [(name, size) for name in "mnk" for size in sizes[name]]
    rows = np.array(
        [[float(shape["mnk".index(name)] == size) for name, size in columns] for shape in products], dtype=np.float64
    )
    wanted = np.array([
        np.log(max(seconds - launch_s, seconds / 2) / (plain.time_s(*shape, item_bytes) - launch_s))
        for shape, seconds in products.items()
    ])  # fmt: skip
    # every row has one size of each letter, so constants may move between the letters: the small ridge decides
    ridge = 0.05 * np.eye(len(columns))
    logs = np.linalg.lstsq(np.vstack([rows, ridge]), np.concatenate([wanted, np.zeros(len(columns))]), rcond=None)[0]
    factors = {column: float(np.exp(value)) for column, value in zip(columns, logs, strict=True)}
    scales = tuple(
        (name, tuple(map(float, known)), tuple(factors[name, size] for size in known)) for name, known in sizes.items()
    )
    return replace(plain, scales=scales)


def fit_gpu(
    products: Products, item_bytes: int, num_units: int, ceiling: float, memory_bytes_per_s: float, launch_s: float
) -> MatmulCurve:
    """Tiles, by coordinate descent on the mean relative error, from plain beginnings; rates stay below the ceiling.

    `num_units`: multiprocessors of the device.
    """
    table = np.array([(*shape, seconds) for shape, seconds in products.items()], dtype=np.float64)
    tiles = tuple((tile_m, tile_n, 0.85 * ceiling) for tile_m, tile_n in TILES)
    curve = MatmulCurve(tiles, num_units, 1e-6, memory_bytes_per_s, SHARPNESS, launch_s)
    best = float(errors(curve, table, item_bytes).mean())
    for _ in range(ROUNDS):
        for what in (*range(len(TILES)), "wave_s", "memory_bytes_per_s", "sharpness", "launch_s"):
            for factor in FACTORS:
                tried = _changed(curve, what, factor, ceiling)
                found = float(errors(tried, table, item_bytes).mean())
                if found < best - 1e-6:
                    curve, best = tried, found
    return curve


def _changed(curve: MatmulCurve, what: int | str, factor: float, ceiling: float) -> MatmulCurve:
    if isinstance(what, str):
        least = 1.0 if what == "sharpness" else 0.0
        changes: dict[str, Any] = {what: max(least, float(f"{getattr(curve, what) * factor:.4g}"))}
        return replace(curve, **changes)
    tile_m, tile_n, rate = curve.tiles[what]
    changed = (tile_m, tile_n, min(ceiling, float(f"{rate * factor:.4g}")))
    return replace(curve, tiles=(*curve.tiles[:what], changed, *curve.tiles[what + 1 :]))


def errors(curve: MatmulCurve, table: Floats, item_bytes: int) -> Floats:
    """Relative errors of a curve without scales over rows (m, n, k, seconds), all at once."""
    m, n, k, seconds = table.T
    kernels = []
    for tile_m, tile_n, rate in curve.tiles:
        num_waves = np.ceil(np.ceil(m / tile_m) * np.ceil(n / tile_n) / curve.num_units)
        kernels.append(num_waves * (2 * tile_m * tile_n * k * curve.num_units / rate + curve.wave_s))
    arithmetic_s = np.min(kernels, axis=0)
    memory_s = item_bytes * (m * k + k * n + m * n) / curve.memory_bytes_per_s
    blended = (arithmetic_s**curve.sharpness + memory_s**curve.sharpness) ** (1 / curve.sharpness)
    found: Floats = np.abs((blended + curve.launch_s) / seconds - 1)
    return found


def curve_error(curve: MatmulCurve, products: Products, item_bytes: int) -> float:
    """The mean relative error of a curve."""
    found = [abs(curve.time_s(*shape, item_bytes) / seconds - 1) for shape, seconds in products.items()]
    return sum(found) / len(found)

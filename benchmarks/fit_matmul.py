"""Fit the tiles and waves of products to measurements: `python benchmarks/fit_matmul.py [--write]`.

Reads benchmarks/data/gemm_bf16_us.csv, fits `MatmulCurve` to one half of the weights by coordinate descent on the mean
relative error, and prints the error on both halves. With --write the curves go into profiles/gpus/*.json.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from measured import products

from autotp.hardware.catalogue import load_device
from autotp.hardware.curves import MatmulCurve

TILES = ((256, 128), (128, 256), (128, 128), (64, 256), (256, 64), (64, 128), (128, 64), (64, 64))
NUM_UNITS = {"A100-SXM4-80GB": 108, "H100-SXM5-80GB": 132}  # multiprocessors, from the datasheets
FACTORS = (0.8, 0.9, 0.95, 0.98, 0.99, 1.01, 1.02, 1.05, 1.1, 1.25)
ROUNDS = 8
SOURCE = (
    "benchmarks/fit_matmul.py: bf16 products of microsoft/vidur (MIT), fitted to the half of the weights that a hash of "
    "(n, k) picks; benchmarks/cost_accuracy.py scores the other half; float16 taken equal"
)


def predicted(curve: MatmulCurve, table: pd.DataFrame) -> np.ndarray:
    """The formula of MatmulCurve over a whole table at once; `main` checks that both agree."""
    m, n, k = (table[name].to_numpy() for name in "mnk")
    kernels = []
    for tile_m, tile_n, rate in curve.tiles:
        num_waves = np.ceil(np.ceil(m / tile_m) * np.ceil(n / tile_n) / curve.num_units)
        kernels.append(num_waves * (2 * tile_m * tile_n * k * curve.num_units / rate + curve.wave_s))
    arithmetic_s = np.min(kernels, axis=0)
    memory_s = 2 * (m * k + k * n + m * n) / curve.memory_bytes_per_s
    return (arithmetic_s**curve.sharpness + memory_s**curve.sharpness) ** (1 / curve.sharpness) + curve.launch_s


def error(curve: MatmulCurve, table: pd.DataFrame) -> np.ndarray:
    return np.abs(predicted(curve, table) / table.time_s.to_numpy() - 1)


def fit(table: pd.DataFrame, num_units: int, ceiling: float, memory_bytes_per_s: float) -> MatmulCurve:
    """From plain beginnings; rates stay below the ceiling."""
    tiles = tuple((tile_m, tile_n, 0.85 * ceiling) for tile_m, tile_n in TILES)
    curve = MatmulCurve(tiles, num_units, 1e-6, memory_bytes_per_s, 4.0, 3e-6)
    best = error(curve, table).mean()
    for _ in range(ROUNDS):
        for what in (*range(len(TILES)), "wave_s", "memory_bytes_per_s", "sharpness", "launch_s"):
            for factor in FACTORS:
                tried = _changed(curve, what, factor, ceiling)
                found = error(tried, table).mean()
                if found < best - 1e-6:
                    curve, best = tried, found
    return curve


def _changed(curve: MatmulCurve, what: int | str, factor: float, ceiling: float) -> MatmulCurve:
    if isinstance(what, str):
        return replace(curve, **{what: float(f"{getattr(curve, what) * factor:.4g}")})
    tile_m, tile_n, rate = curve.tiles[what]
    changed = (tile_m, tile_n, min(ceiling, float(f"{rate * factor:.4g}")))
    return replace(curve, tiles=(*curve.tiles[:what], changed, *curve.tiles[what + 1 :]))


def main(write: bool) -> None:
    for name, num_units in NUM_UNITS.items():
        device, table = load_device(name), products(name)
        fitted = table[table.is_fitted]
        curve = fit(fitted, num_units, device.matmul_flops_per_s["bfloat16"], device.memory_bytes_per_s)
        for label, some in (("fitted", fitted), ("held out", table[~table.is_fitted])):
            small = (some.m <= 512).to_numpy()
            found = error(curve, some)
            print(f"{name} {label}: to 512 tokens {found[small].mean():.1%}, above {found[~small].mean():.1%}")
        one = table.iloc[1234]
        assert np.isclose(curve.time_s(int(one.m), int(one.n), int(one.k), 2), predicted(curve, table)[1234])
        if write:
            path = Path(__file__).parents[1] / "profiles" / "gpus" / f"{name}.json"
            data = json.loads(path.read_text())
            data["matmul_curves"] = {dtype: asdict(curve) for dtype in ("bfloat16", "float16")}
            data["source"]["matmul_curves"] = SOURCE
            path.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main("--write" in sys.argv)

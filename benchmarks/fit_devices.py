"""Fit a device's rates to measured matrix products: `python benchmarks/fit_devices.py [FOLDER]`.

Reads FOLDER/gemm_bf16_measured.csv (default `../shared/data`) and the ceilings of the catalogue, and prints, per GPU,
the memory bandwidth, launch time and matmul_efficiency that profiles/gpus/*.json carry, with the error of the roofline
max(flops / (ceiling · efficiency), bytes / bandwidth) + launch.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from autotp.hardware.catalogue import load_device


def main(folder: Path) -> None:
    rows = pd.read_csv(folder / "gemm_bf16_measured.csv")
    for name, table in rows.groupby("gpu"):
        ceiling = load_device(str(name)).matmul_flops_per_s["bfloat16"]
        m, n, k, seconds = (table[c].to_numpy(float) for c in ("m", "n", "k", "median_us"))
        seconds = seconds * 1e-6
        flops, num_bytes = 2 * m * n * k, 2 * (m * n + n * k + m * k)
        thin = (m <= 64) & (num_bytes > 2e8)  # the time of these is the reading of the weight
        bandwidth = float(np.median(num_bytes[thin] / seconds[thin]))

        def error(choice: tuple[float, float]) -> np.ndarray:
            efficiency, launch_s = choice
            time_s = np.maximum(flops / (ceiling * efficiency), num_bytes / bandwidth) + launch_s  # noqa: B023
            return np.abs(time_s / seconds - 1)  # noqa: B023

        grid = product(np.arange(0.7, 1.001, 0.01), np.arange(0, 10.1, 0.5) * 1e-6)
        best = min(grid, key=lambda choice: error(choice).mean())
        groups = {"up to 64": m <= 64, "65 to 512": (m > 64) & (m <= 512), "above 512": m > 512}
        accuracy = ", ".join(f"{label} tokens {np.median(error(best)[rows]):.1%}" for label, rows in groups.items())
        print(
            f"{name}: memory {bandwidth / 1e9:.0f} GB/s, efficiency {best[0]:.2f}, launch {best[1] * 1e6:.1f} us; "
            f"median error: {accuracy}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))

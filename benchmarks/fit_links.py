"""Fit latency and bus bandwidth to measured all_reduce times: `python benchmarks/fit_links.py [FOLDER]`.

Reads FOLDER/all_reduce/*.csv (default `../shared/data`) and prints one line per file and group: the numbers that
profiles/clusters/*.json carry, and how far the fit is off. A straight line in bytes, relative errors, over sizes
spaced evenly in log(bytes) from 1 MiB on; reweighted towards least absolute errors, so that outliers count little.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FIRST_BYTES = 2**20  # below it the time is a floor set by how kernels are launched, not by the link


def read_rows(path: Path) -> dict[tuple[int, int], tuple[Floats, Floats]]:
    """(number of ranks, ranks per node) -> bytes, seconds."""
    rows = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            key = (int(row["num_workers"]), int(row["devices_per_node"]))
            rows[key].append((float(row["bytes"]), float(row["median_ms_max_over_ranks"]) / 1e3))
    return {key: tuple(np.array(sorted(found)).T) for key, found in sorted(rows.items())}


def fit_line(num_bytes: Floats, seconds: Floats, num_samples: int = 40) -> tuple[float, float]:
    """(latency_s, seconds per byte) of the line with the least relative errors."""
    used = num_bytes >= FIRST_BYTES
    num_bytes, seconds = num_bytes[used], seconds[used]
    grid = np.linspace(np.log(num_bytes[0]), np.log(num_bytes[-1]), num_samples)
    picked = np.unique(np.abs(np.log(num_bytes) - grid[:, None]).argmin(axis=1))
    num_bytes, seconds = num_bytes[picked], seconds[picked]
    matrix = np.stack([1 / seconds, num_bytes / seconds], axis=1)
    weights = np.ones(len(seconds))
    for _ in range(50):
        found = np.linalg.lstsq(matrix * weights[:, None], weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(matrix @ found - 1), 1e-3))
    return float(found[0]), float(found[1])


def main(folder: Path) -> None:
    for path in sorted((folder / "all_reduce").glob("*.csv")):
        for (num_ranks, per_node), (num_bytes, seconds) in read_rows(path).items():
            latency_s, slope = fit_line(num_bytes, seconds)
            bus_bytes_per_s = 2 * (num_ranks - 1) / num_ranks / slope
            error = np.abs((latency_s + slope * num_bytes) / seconds - 1)
            large = num_bytes >= 2**20
            print(
                f"{path.stem}: {num_ranks} ranks, {per_node} per node: latency {latency_s * 1e6:.1f} us, "
                f"bus {bus_bytes_per_s / 1e9:.1f} GB/s; median error from 1 MiB {np.median(error[large]):.1%}, "
                f"below {np.median(error[~large]):.1%}"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))

"""Measured points of all_reduce for the shipped nodes: `python benchmarks/fit_points.py [--write]`.

Reads benchmarks/data/all_reduce_us.csv and takes the median of the sizes in every bin, which spans STEP up to FINE_BYTES
and COARSE_STEP beyond. A ring's all_gather and reduce_scatter have half of the all_reduce's steps, so
their points are latency + (all_reduce - latency) / 2. With --write the points go into profiles/clusters/*.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from measured import all_reduces

from autotp.hardware.catalogue import load_cluster
from autotp.hardware.curves import CollectivePoints

NODES = ("dgx-a100", "dgx-h100")
STEP, COARSE_STEP, FINE_BYTES, MIN_SIZES = 1.1, 1.5, 2**20, 3


def points_of(measured: pd.Series) -> CollectivePoints:
    """Medians of bins of at least MIN_SIZES sizes, at the bins' geometric means."""
    sizes, seconds = measured.index.to_numpy(float), measured.to_numpy()
    num_bytes, medians, start = [], [], 0
    for end in range(1, len(sizes) + 1):
        step = STEP if sizes[start] < FINE_BYTES else COARSE_STEP
        is_full = end == len(sizes) or sizes[end] >= sizes[start] * step
        if is_full and (end - start >= MIN_SIZES or end == len(sizes)):
            num_bytes.append(float(f"{np.exp(np.log(sizes[start:end]).mean()):.0f}"))
            medians.append(float(f"{np.median(seconds[start:end]):.4g}"))
            start = end
    return CollectivePoints(tuple(num_bytes), tuple(medians))


def main(write: bool) -> None:
    for node in NODES:
        line = load_cluster(node).links["intra"].collective("all_reduce")
        reduce, halves = {}, {}
        for num_ranks, measured in all_reduces(node).items():
            points, latency_s = points_of(measured), line.at(num_ranks)[0]
            half = [latency_s + (s - latency_s) / 2 if s > latency_s else s for s in points.time_s]
            reduce[str(num_ranks)] = {"num_bytes": points.num_bytes, "time_s": points.time_s}
            halves[str(num_ranks)] = {"num_bytes": points.num_bytes, "time_s": [float(f"{s:.4g}") for s in half]}
            print(f"{node}, {num_ranks} ranks: {len(points.num_bytes)} points")
        for name in (node, f"{node}-x2") if write else ():
            path = Path(__file__).parents[1] / "profiles" / "clusters" / f"{name}.json"
            data = json.loads(path.read_text())
            collectives = data["links"]["intra"]["collectives"]
            collectives["all_reduce"]["points"] = reduce
            collectives["all_gather"]["points"] = collectives["reduce_scatter"]["points"] = halves
            path.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main("--write" in sys.argv)

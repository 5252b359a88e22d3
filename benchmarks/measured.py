"""The measured tables in benchmarks/data, and how they are halved: what is fitted is not what is scored."""

import hashlib
from pathlib import Path

import pandas as pd

DATA = Path(__file__).parent / "data"


def products(gpu: str) -> pd.DataFrame:
    """Columns m, n, k, time_s and `is_fitted`: a hash of (n, k) decides, so that a weight is in one half only."""
    wide = pd.read_csv(DATA / "gemm_bf16_us.csv")
    table = wide[wide.gpu == gpu].drop(columns="gpu").melt(["n", "k"], var_name="m", value_name="us")
    table["m"] = table["m"].str[1:].astype(int)
    table["time_s"] = table.pop("us") * 1e-6
    table["is_fitted"] = [_hash(n, k) for n, k in zip(table.n, table.k, strict=True)]
    return table


def _hash(n: int, k: int) -> bool:
    return hashlib.sha256(f"{n},{k}".encode()).digest()[0] % 2 == 0


def all_reduces(node: str) -> dict[int, pd.Series]:
    """By number of ranks: seconds by bytes."""
    wide = pd.read_csv(DATA / "all_reduce_us.csv").set_index("bytes") * 1e-6
    return {int(name.split("/")[1]): wide[name] for name in wide if name.startswith(f"{node}/")}

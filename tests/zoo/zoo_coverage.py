"""Verify every model of the zoo, and keep what came of it for docs/coverage.md: `make test-zoo`."""

import argparse
import json
import multiprocessing
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from zoo import ZOO
from zoo_case import MIN_SPLIT
from zoo_verify import verified, verified_over_gloo

KEPT = Path(__file__).parents[2] / "docs" / "coverage" / "models.json"
RUNS = (("tp=2", "train"), ("tp=4", "train"), ("tp=2", "infer"), ("tp=4", "infer"))
GLOO_BATCH = 8  # models that one pair of processes verifies
TIMEOUT_S = 900.0
MAX_PARAMETER_FRACTION = 0.30  # at 4 ranks
# Models that may split less than their kind should, and why.
EXCEPTIONS: Mapping[str, str] = {}


def verify_one(name: str) -> tuple[dict[str, Any], list[str]]:
    """A row of the table, and problems. Importable by name, so that processes can call it."""
    torch.set_num_threads(1)
    row: dict[str, Any] = {"split": 1.0, "bytes": 1.0, "fallback": []}
    problems = []
    for mesh, mode in RUNS:
        try:
            result = verified(ZOO[name], mesh, mode)
        except Exception as error:  # noqa: BLE001 - a model that is refused is a line of the report
            problems.append(f"{mesh} {mode}: refused: {''.join(traceback.format_exception_only(error)).strip()}")
            continue
        problems += [f"{mesh} {mode}: {problem}" for problem in result["problems"]]
        row["fallback"] = result["fallback_ops"]
        if mode == "train":
            row["split"] = round(min(row["split"], result["split"]), 4)
            row["bytes"] = round(result["parameter_fraction"], 4)
    return row, problems


def shortfalls(name: str, row: Mapping[str, Any]) -> list[str]:
    """Where a row does not reach what its kind should."""
    found = []
    least = MIN_SPLIT[ZOO[name].kind]
    if row["split"] < least and name not in EXCEPTIONS:
        found.append(f"splits {row['split']:.1%} of its matmul FLOPs, {least:.0%} are asked")
    if row["bytes"] > MAX_PARAMETER_FRACTION:
        found.append(f"a rank of 4 holds {row.get('bytes', 1.0):.1%} of the parameter bytes")
    return found


def data(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What is kept: models in the zoo's order."""
    models = {name: {"kind": ZOO[name].kind, **rows[name]} for name in ZOO}
    return {"models": models, "exceptions": dict(EXCEPTIONS)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models to verify; all by default, and only then results are kept")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--no-gloo", action="store_true", help="simulated ranks only")
    options = parser.parse_args()
    names = options.names or list(ZOO)
    rows: dict[str, Mapping[str, Any]] = {}
    problems: dict[str, list[str]] = {name: [] for name in names}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context) as pool:
        running = {pool.submit(verify_one, name): name for name in names}
        for future in as_completed(running):
            name = running[future]
            rows[name], found = future.result()
            problems[name] = found + shortfalls(name, rows[name])
            _say(name, problems[name])
    for start in range(0, 0 if options.no_gloo else len(names), GLOO_BATCH):
        batch = [ZOO[name] for name in names[start : start + GLOO_BATCH]]
        for name, found in verified_over_gloo(batch, TIMEOUT_S).items():
            problems[name] += [f"gloo: {problem}" for problem in found]
            _say(f"{name} over gloo", found)
    failed = {name: found for name, found in problems.items() if found}
    print(f"{len(names) - len(failed)} of {len(names)} models verified", *failed, sep="\n  ")
    if not failed and not options.names and not options.no_gloo:
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        aside = KEPT.with_suffix(".new")
        aside.write_text(json.dumps(data(rows), indent=1) + "\n")
        aside.rename(KEPT)
    return len(failed) > 0


def _say(name: str, problems: list[str]) -> None:
    print(f"{'WRONG' if problems else 'ok   '} {name}", *problems, sep="\n        ", flush=True)


if __name__ == "__main__":
    sys.exit(main())

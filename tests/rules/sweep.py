"""The sweep: torch's own samples of every operator, under every strategy of its rule, on two and three ranks.

`python tests/rules/sweep.py` runs all of it, prints the table and keeps it for docs/coverage.md; it fails where any
strategy is wrong. Names of entries of op_db as arguments run only those, and keep nothing.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from op_db_samples import ENTRIES, samples_of
from rules_samples import SAMPLES
from samples_of_networks import SAMPLES as OF_NETWORKS

from autotp.check.rule import check_sample
from autotp.errors import AutoTPError
from autotp.graph import Node
from autotp.rules.registry import is_fallback
from autotp.rules.whole import reason_of

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "coverage" / "operators.json"
OWN = "own samples"  # in place of an entry of op_db: those of tests/rules
MAX_SAMPLES = 40  # of one entry


@dataclass
class Row:
    """What was run of one operator."""

    num_samples: int = 0
    num_strategies: int = 0
    is_split: bool = False
    has_rule: bool = True
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Row") -> None:
        self.num_samples += other.num_samples
        self.num_strategies += other.num_strategies
        self.is_split |= other.is_split
        self.has_rule &= other.has_rule
        self.wrong += other.wrong


def sweep(entry: str, max_samples: int = MAX_SAMPLES, ranks: Sequence[int] = (2, 3)) -> dict[str, Row]:
    """Check the samples of one entry of op_db; a row per operator that they call."""
    rows: dict[str, Row] = {}
    for sample in [*SAMPLES, *OF_NETWORKS] if entry == OWN else samples_of(entry, max_samples):
        row = rows.setdefault(sample.op, Row())
        row.num_samples += 1
        row.has_rule = not is_fallback(Node("", "op", sample.op))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                checked = check_sample(sample, ranks)
        except AutoTPError as error:
            row.wrong.append(f"{entry}: {str(error)[:1500]}")
            continue
        row.num_strategies += checked.num_strategies
        row.is_split |= bool(checked.factors)
    return rows


def _job(entry: str, max_samples: int) -> tuple[str, dict[str, Row] | str, float]:
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        found: dict[str, Row] | str = sweep(entry, max_samples)
    except Exception as error:  # noqa: BLE001 - reported as a failure of the entry
        found = f"{type(error).__name__}: {error}"
    return entry, found, time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", nargs="*")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--samples", type=int, default=MAX_SAMPLES, help="of one entry at most")
    options = parser.parse_args()
    names = options.entries or [OWN, *ENTRIES]
    rows: dict[str, Row] = {}
    broken: list[str] = []
    started = time.perf_counter()
    with ProcessPoolExecutor(options.jobs) as pool:
        for entry, found, seconds in pool.map(_job, names, [options.samples] * len(names)):
            if isinstance(found, str):
                broken.append(f"{entry}: {found}")
                print(f"BROKEN {broken[-1]}", file=sys.stderr, flush=True)
                continue
            for text in (text for row in found.values() for text in row.wrong):
                print(f"WRONG {text}", file=sys.stderr, flush=True)
            for op, row in found.items():
                rows.setdefault(op, Row()).add(row)
            if seconds > 20:
                print(f"{entry}: {seconds:.0f} s", file=sys.stderr)
    for op in sorted(rows):
        row = rows[op]
        note = "split" if row.is_split else "" if row.has_rule else "no rule"
        print(f"{op:60} {row.num_samples:5} samples {row.num_strategies:7} strategies  {note or reason_of(op)}")
    unexplained = [op for op, row in rows.items() if row.has_rule and not row.is_split and not reason_of(op)]
    wrong = [text for row in rows.values() for text in row.wrong]
    for op in unexplained:
        print(f"UNEXPLAINED {op}: nothing of it may be split, and no reason is given", file=sys.stderr)
    print(
        f"{len(rows)} operators, {sum(row.num_samples for row in rows.values())} samples, "
        f"{sum(row.num_strategies for row in rows.values())} strategies, {len(wrong)} wrong, "
        f"{time.perf_counter() - started:.0f} s"
    )
    failed = bool(broken or wrong or unexplained)
    if not options.entries and not failed:
        keep(rows, options.samples)
    return int(failed)


def keep(rows: dict[str, Row], max_samples: int) -> None:
    table = {
        op: {
            "samples": row.num_samples, "strategies": row.num_strategies, "is_split": row.is_split,
            "has_rule": row.has_rule, "reason": "" if row.is_split else reason_of(op),
        }
        for op, row in sorted(rows.items())
    }  # fmt: skip
    facts = {"torch": torch.__version__.split("+")[0], "samples": max_samples}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    aside = KEPT.with_suffix(".new")
    aside.write_text(json.dumps(facts | {"operators": table}, indent=1) + "\n")
    aside.rename(KEPT)


if __name__ == "__main__":
    sys.exit(main())

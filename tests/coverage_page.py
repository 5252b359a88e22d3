"""Writes docs/coverage.md from what the sweep (operators.json) and the zoo (models.json) measured. Never edit it by hand."""

import json
from pathlib import Path
from typing import Any

from coverage_models import models

DOCS = Path(__file__).parents[1] / "docs"
DATA = DOCS / "coverage"

HEAD = """# Coverage

Written by `python tests/coverage_page.py` from what was run; not edited by hand.
"""

OPERATORS = """## Operators

`make test-ops` runs torch's own sample inputs (`op_db` of torch {torch}) and samples of our own of every operator
under every strategy of its rule: every factor cut in equal, unequal, empty and several blocks, deferred gradients, partial
sums, on two and three ranks and pairs of cuts on a mesh of two by two. Results, gradients and what is written to are
compared with the whole.

{num} operators, {split} of which may be split; {samples} samples, {strategies} strategies, none wrong.

| operator | samples | strategies | split |
|---|---:|---:|---|
"""


def operators(found: dict[str, Any]) -> str:
    rows = found["operators"]
    total = OPERATORS.format(
        torch=found["torch"],
        num=len(rows),
        split=sum(row["is_split"] for row in rows.values()),
        samples=f"{sum(row['samples'] for row in rows.values()):,}",
        strategies=f"{sum(row['strategies'] for row in rows.values()):,}",
    )
    return total + "\n".join(map(operator_line, rows, rows.values())) + "\n"


def operator_line(op: str, row: dict[str, Any]) -> str:
    name = op.removeprefix("aten.").removesuffix(".default")
    without = f"no: {row['reason']}" if row["has_rule"] else "no rule: whole on every rank, with a warning"
    return f"| `{name}` | {row['samples']} | {row['strategies']} | {'yes' if row['is_split'] else without} |"


SECTIONS = {
    "models.json": models,
    "operators.json": operators,
}  # a file of DATA and what makes a section of it, in order


def page() -> str:
    """The whole page: a section for every kind of data there is."""
    parts = [HEAD]
    for name, section in SECTIONS.items():
        path = DATA / name
        if path.exists():
            parts.append(section(json.loads(path.read_text())))
    return "\n".join(parts)


def write() -> None:
    aside = DOCS / "coverage.new"
    aside.write_text(page())
    aside.rename(DOCS / "coverage.md")


if __name__ == "__main__":
    write()

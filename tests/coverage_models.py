"""The section on models of docs/coverage.md, from what `make test-zoo` kept."""

from typing import Any

HEAD = """## Models

`make test-zoo` compares every model of the zoo (random weights, small) with itself on one device: outputs, every gradient,
and parameters and buffers after an optimizer step in training on 2 and 4 simulated ranks and on 2 processes over gloo, and
outputs in inference on 2 and 4 simulated ranks, all planned under `--objective memory`. *FLOPs split* is the part of the
matmul FLOPs that is divided over the ranks, the least of the training runs; *parameter bytes* what the fullest of 4 ranks
holds of them. *Whole operators* have no rule: they run on every rank alike.

{num} models, all of them right.

| model | kind | FLOPs split | parameter bytes | whole operators |
|---|---|---:|---:|---|
"""


def models(found: dict[str, Any]) -> str:
    """The table, and the exceptions with their reasons."""
    rows = found["models"]
    lines = []
    for name, row in rows.items():
        whole = ", ".join(f"`{op}`" for op in sorted(row["fallback"]))
        lines.append(f"| {name} | {row['kind']} | {row['split']:.1%} | {row['bytes']:.1%} | {whole} |")
    notes = [f"- {name}: {reason}" for name, reason in found["exceptions"].items()]
    text = HEAD.format(num=len(rows)) + "\n".join(lines) + "\n"
    return text + ("\nExceptions:\n\n" + "\n".join(notes) + "\n" if notes else "")

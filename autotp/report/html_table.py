"""A DataFrame as the page shows it: every cell in words, with the number behind it to sort by."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from autotp.report.layers import fold_rows
from autotp.report.units import count, rate, seconds, size

# How a column is worded, by how its name ends; the ending is not part of the heading.
WORDS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("_bytes", size),
    ("_s", seconds),
    ("_flops", lambda value: count(value) if value else ""),
    ("_flops_per_byte", lambda value: f"{value:.0f}"),
    ("_flops_per_s", lambda value: rate(value, "flop")),
    ("share", lambda value: f"{value:.1%}"),
)
HEADINGS = {
    "num_bytes": "bytes", "num_ranks": "ranks", "local_flops": "FLOPs", "local_bytes": "bytes", "over": "over",
    "intensity_flops_per_byte": "FLOPs per byte", "rate_flops_per_s": "FLOPs per second",
}  # fmt: skip
LONG = 8  # rows that a reader sees at once


@dataclass(frozen=True, slots=True)
class Cell:
    """`sort`: the number behind the words, None for text."""

    text: str
    sort: float | None = None


@dataclass(frozen=True, slots=True)
class HtmlTable:
    """`numeric`: per column whether it holds numbers, which stand at the right."""

    name: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def is_long(self) -> bool:
        """Whether a reader wants to filter it."""
        return len(self.rows) > LONG


def html_table(name: str, frame: pd.DataFrame) -> HtmlTable:
    """Columns that are empty everywhere are left out."""
    kept = [c for c in frame.columns if not (frame[c].isna() | (frame[c].astype(str) == "")).all()]
    words = [_words(str(column)) for column in kept]
    numeric = tuple(
        word is not None or pd.api.types.is_numeric_dtype(frame[c]) for word, c in zip(words, kept, strict=True)
    )
    rows = tuple(
        tuple(_cell(value, word) for value, word in zip(row, words, strict=True))
        for row in frame[kept].itertuples(index=False, name=None)
    )
    return HtmlTable(name, tuple(_heading(str(column)) for column in kept), numeric, rows)


def _words(column: str) -> Callable[[float], str] | None:
    if column == "num_bytes":
        return size
    fitting = [(ending, words) for ending, words in WORDS if column.endswith(ending)]
    return max(fitting, key=lambda pair: len(pair[0]))[1] if fitting else None


def _heading(column: str) -> str:
    if column in HEADINGS:
        return HEADINGS[column]
    fitting = [ending for ending, _ in WORDS if column.endswith(ending) and ending != "share"]
    return column.removesuffix(max(fitting, key=len, default="")).replace("_", " ")


def _cell(value: Any, words: Callable[[float], str] | None) -> Cell:
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if value is None or (isinstance(value, float) and value != value):
        return Cell("–")
    if isinstance(value, str):
        return Cell(value)
    return Cell(words(float(value)) if words else f"{value:,}", float(value))


def folded(
    frame: pd.DataFrame, key: str, *, without: Sequence[str] = (), each: Sequence[str] = ("time_s",)
) -> pd.DataFrame:
    """Rows that differ only in the indices of the module path `key` as one, with how often it is there.

    `without`: columns to leave out, which name single occurrences. Columns in `each` are summed up over the occurrences;
    a `share` too. Most expensive first where there is a sum.
    """
    rest = [c for c in frame.columns if c != key and c not in without]
    rows: list[tuple[str, tuple[Hashable, ...]]] = [
        (path, tuple(row)) for path, *row in frame[[key, *rest]].itertuples(index=False, name=None)
    ]
    found = [(item.path or "(model)", item.count, *item.content) for item in fold_rows(rows)]
    result = pd.DataFrame(found, columns=[key, "times", *rest])
    for column in (*each, "share"):
        if column in result:
            result[column] = result[column] * result["times"]
    return result.sort_values(each[0], ascending=False, kind="stable") if each and each[0] in result else result


def alike(frame: pd.DataFrame) -> pd.DataFrame:
    """Ranks whose rows are equal as one row: `0..7`."""
    rest = [column for column in frame.columns if column != "rank"]
    rows: list[tuple[str, tuple[Hashable, ...]]] = [
        (str(rank), tuple(row)) for rank, *row in frame[["rank", *rest]].itertuples(index=False, name=None)
    ]
    return pd.DataFrame([(item.path, *item.content) for item in fold_rows(rows)], columns=["rank", *rest])

"""A sample of the sweep over torch's own samples; `make test-ops` runs all of it."""

import json

import pytest
from op_db_samples import ENTRIES
from sweep import KEPT, sweep

FAST = list(ENTRIES)[::12]


@pytest.mark.parametrize("entry", FAST)
def test_no_strategy_is_wrong_on_samples_of_torch(entry: str) -> None:
    rows = sweep(entry, max_samples=2, ranks=(2,))
    assert [text for row in rows.values() for text in row.wrong] == []


def test_the_kept_table_gives_a_reason_for_what_is_never_split() -> None:
    rows = json.loads(KEPT.read_text())["operators"]
    assert [op for op, row in rows.items() if row["has_rule"] and not row["is_split"] and not row["reason"]] == []

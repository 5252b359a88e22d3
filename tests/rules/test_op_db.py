"""A sample of the sweep over torch's own samples; `make test-ops` runs all of it."""

import pytest
from op_db_samples import ENTRIES
from sweep import sweep

FAST = list(ENTRIES)[::12]


@pytest.mark.parametrize("entry", FAST)
def test_no_strategy_is_wrong_on_samples_of_torch(entry: str) -> None:
    rows = sweep(entry, max_samples=2, ranks=(2,))
    assert [text for row in rows.values() for text in row.wrong] == []

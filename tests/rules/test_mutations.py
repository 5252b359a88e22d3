"""The execution check finds every rule that is broken on purpose."""

import pytest
from mutations import MUTATIONS, Mutation, survives

QUICK = [m for m in MUTATIONS if m.op not in ("cross_entropy_loss", "scaled_dot_product_attention")]


@pytest.mark.parametrize("mutation", QUICK, ids=lambda m: m.name.replace(" ", "-"))
def test_a_broken_rule_is_found(mutation: Mutation) -> None:
    assert not survives(mutation), f"{mutation.name}: nobody noticed"

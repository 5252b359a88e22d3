"""Models that do not divide, over real processes: too long for every run, `make test-degrees` runs it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_any_degree import check

pytestmark = pytest.mark.distributed
MODELS = ("qwen2", "gpt2", "llama", "nanogpt", "resnet", "moe")


@pytest.mark.parametrize("ranks", (2, 3, 5))
@pytest.mark.parametrize("name", MODELS)
def test_over_gloo(name, ranks):
    check(name, ranks, "gloo")

"""A rule is right when running it says so: every operator, every cut, forward and backward, against the whole."""

import pytest
import torch
from rules_samples import SAMPLES

from autotp.check.rule import check_sample
from autotp.check.sample import Sample


def name_of(sample: Sample) -> str:
    return sample.op.removeprefix("aten.").removesuffix(".default")


@pytest.mark.parametrize("sample", SAMPLES, ids=name_of)
def test_ranks_compute_what_the_whole_operator_computes(sample: Sample) -> None:
    torch.manual_seed(0)
    checked = check_sample(sample)
    assert len(checked.factors) >= sample.min_cuts, f"{checked.rule} may not be cut"

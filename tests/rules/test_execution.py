"""A rule is right when running it says so: every operator, every cut, forward and backward, against the whole."""

import pytest
import torch
from rules_harness import Case, Sample, cuts, groups_of, pairs, unsplit
from rules_samples import SAMPLES

from autotp.graph import Node
from autotp.mesh import Mesh
from autotp.rules.registry import TABLE


def name_of(sample: Sample) -> str:
    return sample.op.removeprefix("aten.").removesuffix(".default")


@pytest.mark.parametrize("sample", SAMPLES, ids=name_of)
def test_ranks_compute_what_the_whole_operator_computes(sample: Sample) -> None:
    torch.manual_seed(0)
    case = Case(sample)
    assert len(groups_of(case.rule)) >= sample.min_cuts, f"{case.rule} may not be cut"
    for num_ranks in (2, 3):
        mesh = Mesh((("tp", num_ranks),))
        for option in (*unsplit(case), *cuts(case, num_ranks)):
            case.check((option,), mesh)
    mesh = Mesh((("dp", 2), ("tp", 2)))
    for options in pairs(case, mesh):
        case.check(options, mesh)


def test_every_registered_operator_has_a_sample() -> None:
    sampled = {Node("", "op", sample.op).short_op for sample in SAMPLES}
    assert sorted(set(TABLE) - sampled) == []

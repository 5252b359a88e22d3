"""A rule is right when running it says so: every operator, every cut, forward and backward, against the whole."""

import json

import pytest
import torch
from rules_samples import SAMPLES
from samples_of_networks import SAMPLES as OF_NETWORKS
from samples_of_reductions import SAMPLES as OF_REDUCTIONS
from sweep import KEPT

from autotp.check.rule import check_sample
from autotp.check.sample import Sample
from autotp.graph import Node
from autotp.rules.registry import TABLE


def name_of(sample: Sample) -> str:
    return sample.op.removeprefix("aten.").removesuffix(".default")


@pytest.mark.filterwarnings("ignore:torch.chain_matmul", "ignore:Using torch.cross")
@pytest.mark.parametrize("sample", [*SAMPLES, *OF_NETWORKS, *OF_REDUCTIONS], ids=name_of)
def test_ranks_compute_what_the_whole_operator_computes(sample: Sample) -> None:
    torch.manual_seed(0)
    checked = check_sample(sample)
    assert len(checked.factors) >= sample.min_cuts, f"{checked.rule} may not be cut"


def test_every_registered_operator_has_a_sample() -> None:
    sampled = {Node("", "op", sample.op).short_op for sample in [*SAMPLES, *OF_NETWORKS, *OF_REDUCTIONS]}
    swept = {Node("", "op", op).short_op for op in json.loads(KEPT.read_text())["operators"]}
    assert sorted(set(TABLE) - sampled - swept) == []

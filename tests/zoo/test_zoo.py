"""A few models of the zoo, of every kind; `make test-zoo` runs all."""

import pytest
from zoo import FAST, ZOO
from zoo_case import MIN_SPLIT
from zoo_verify import verified


@pytest.mark.parametrize("name", FAST)
def test_a_model_of_the_zoo_trains_as_the_whole_model(name):
    result = verified(ZOO[name], "tp=4", "train")
    assert result["ok"], result["problems"]
    assert result["split"] >= MIN_SPLIT[ZOO[name].kind]
    assert result["parameter_fraction"] <= 0.3


@pytest.mark.parametrize("name", FAST[::3])
def test_a_model_of_the_zoo_infers_as_the_whole_model(name):
    result = verified(ZOO[name], "tp=2", "infer")
    assert result["ok"], result["problems"]


def test_the_zoo_has_what_it_should():
    assert len(ZOO) >= 40
    assert {case.kind for case in ZOO.values()} == set(MIN_SPLIT)

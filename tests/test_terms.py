"""The structure of dims: unification of products and concatenations."""

import itertools

import pytest

from autotp.rules.terms import Terms


def factors(terms: Terms, term: int) -> list[int]:
    return [terms.extent(f) for f in terms.flat(term, "product")]


def test_a_product_refines_every_place_the_term_occurs() -> None:
    terms = Terms()
    weight, result = terms.atom(48), terms.atom(48)
    assert terms.equate(weight, [result], is_concat=False)
    assert terms.equate(result, [terms.atom(3), terms.atom(4), terms.atom(4)], is_concat=False)
    assert factors(terms, weight) == [3, 4, 4]


def test_two_radices_meet_in_their_common_refinement() -> None:
    terms = Terms()
    dim = terms.atom(24)
    assert terms.equate(dim, [terms.atom(4), terms.atom(6)], is_concat=False)
    assert terms.equate(dim, [terms.atom(12), terms.atom(2)], is_concat=False)
    assert factors(terms, dim) == [4, 3, 2]


def test_a_contradiction_changes_nothing() -> None:
    terms = Terms()
    dim, four, six = terms.atom(24), terms.atom(4), terms.atom(6)
    assert terms.equate(dim, [four, six], is_concat=False)
    three = terms.atom(3)
    assert not terms.equate(dim, [three, terms.atom(8)], is_concat=False)
    assert factors(terms, dim) == [4, 6]
    assert factors(terms, three) == [3]


def test_equal_parts_of_a_concatenation_are_a_product() -> None:
    terms = Terms()
    fused, part = terms.atom(48), [terms.atom(16) for _ in range(3)]
    assert terms.equate(fused, part, is_concat=True)
    assert terms.equate(part[1], [terms.atom(2), terms.atom(8)], is_concat=False)
    assert factors(terms, fused) == [3, 2, 8]
    assert factors(terms, part[2]) == [2, 8]


def test_unequal_parts_stay_a_concatenation_and_boundaries_must_nest() -> None:
    terms = Terms()
    fused = terms.atom(32)
    assert terms.equate(fused, [terms.atom(16), terms.atom(8), terms.atom(8)], is_concat=True)
    assert terms.is_concat(fused)
    assert [terms.extent(p) for p in terms.flat(fused, "concat")] == [16, 8, 8]
    assert terms.equate(fused, [terms.atom(16), terms.atom(16)], is_concat=True) is False  # a product by now
    assert not terms.equate(fused, [terms.atom(10), terms.atom(22)], is_concat=True)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_equations_does_not_matter(order: tuple[int, ...]) -> None:
    terms = Terms()
    a, b, c = terms.atom(96), terms.atom(96), terms.atom(32)
    parts = [terms.atom(32), terms.atom(32)]
    equations = [
        lambda: terms.equate(a, [b], is_concat=False),
        lambda: terms.equate(b, [parts[0], parts[1], c], is_concat=True),
        lambda: terms.equate(c, [terms.atom(4), terms.atom(8)], is_concat=False),
        lambda: terms.equate(parts[0], [terms.atom(8), terms.atom(4)], is_concat=False),
    ]
    made = [equations[i]() for i in order]  # each of them, in this order
    assert all(made)
    assert factors(terms, a) == [3, 4, 2, 4]

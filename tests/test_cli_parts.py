"""What the command line reads and how it words things, without running a command."""

import pytest
from autotp.cli.options import parse_mesh, parse_settings

from autotp.errors import AutoTPError
from autotp.mesh import Mesh
from autotp.placement import B, P, R, shard
from autotp.plans import Move
from autotp.redistribute import Step
from autotp.report.layers import Folded, fold_rows
from autotp.report.units import count, parse_bytes, rate, seconds, share, size
from autotp.report.words import describe_choice, describe_move, describe_placement, join_shapes, short_op
from autotp.rules.strategy import Choice


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("size=tiny", "tiny"),
        ("layers=4", 4),
        ("rate=1e-3", 1e-3),
        ("tied=true", True),
        ("none=null", None),
        ("dims=[1, 2]", [1, 2]),
        ('name="4"', "4"),
        ("text=a=b", "a=b"),
        ("empty=", ""),
        ("broken=[1,", "[1,"),
        ("limit=NaN", "NaN"),
        ("limit=Infinity", "Infinity"),
    ],
)
def test_settings_are_json_or_else_text(text: str, value: object) -> None:
    assert parse_settings([text]) == {text.partition("=")[0]: value}


def test_several_settings() -> None:
    assert parse_settings(["size=tiny", "layers=4"]) == {"size": "tiny", "layers": 4}
    assert parse_settings(None) == {}


@pytest.mark.parametrize("text", ["size", "=4", "a b=4", "4=a", ""])
def test_a_bad_setting_is_refused(text: str) -> None:
    with pytest.raises(AutoTPError, match="name=value"):
        parse_settings([text])


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(AutoTPError, match="size is given twice"):
        parse_settings(["size=tiny", "size=8b"])


def test_devices_mean_an_axis_called_tp() -> None:
    assert parse_mesh(4, None) == Mesh((("tp", 4),)) == parse_mesh(None, "tp=4")
    assert parse_mesh(None, "dp=2,tp=4") == Mesh((("dp", 2), ("tp", 4)))
    assert parse_mesh(None, None) is None


@pytest.mark.parametrize(
    ("devices", "mesh", "message"),
    [
        (4, "tp=4", "exclude each other"),
        (0, None, "at least 1 device"),
        (-2, None, "at least 1 device"),
        (None, "tp", "cannot read the mesh"),
        (None, "tp=2,tp=2", "different names"),
        (None, "tp=0", "size of at least 1"),
    ],
)
def test_bad_meshes_are_refused(devices: int | None, mesh: str | None, message: str) -> None:
    with pytest.raises(AutoTPError, match=message):
        parse_mesh(devices, mesh)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("70GiB", 70 * 1024**3),
        ("80GB", 80e9),
        ("24e9", 24e9),
        ("512 MiB", 512 * 1024**2),
        ("1.5tib", 1.5 * 1024**4),
        ("2kB", 2000),
        ("100b", 100),
        (".5GiB", 512 * 1024**2),
    ],
)
def test_memory_sizes(text: str, num_bytes: float) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["abc", "", "70 gigs", "GiB", "70G", "1e", "nan", "inf", "1GiB2"])
def test_unreadable_memory_sizes_are_refused(text: str) -> None:
    with pytest.raises(AutoTPError, match="cannot read the memory size"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["-1GiB", "0", "0GB", "1e999"])
def test_memory_sizes_must_be_positive_and_finite(text: str) -> None:
    with pytest.raises(AutoTPError, match="positive and finite"):
        parse_bytes(text)


def test_numbers_have_three_digits() -> None:
    assert [seconds(s) for s in (1.234, 0.9996, 0.1, 2.5e-5, 3e-9, 0)] == [
        "1.23 s", "1.00 s", "100 ms", "25.0 µs", "3.00 ns", "0",
    ]  # fmt: skip
    assert [size(n) for n in (0, 1023, 1024, 1.5 * 1024**3)] == ["0 B", "1023 B", "1.00 KiB", "1.50 GiB"]
    assert [count(n) for n in (12, 12_345, 8.03e9)] == ["12", "12.3 k", "8.03 B"]
    assert [rate(r, "B") for r in (3.35e12, 48e9, 12)] == ["3.35 TB/s", "48.0 GB/s", "12 B/s"]
    assert share(1, 3) == "33.3%"
    assert share(0, 0) == "-"


def test_equal_rows_of_repeated_layers_are_one() -> None:
    rows = [(f"layers.{i}.up", "column") for i in range(4)] + [("layers.4.up", "row"), ("head", "row")]
    assert fold_rows(rows) == [
        Folded("layers.0..3.up", "column", 4),
        Folded("layers.4.up", "row", 1),
        Folded("head", "row", 1),
    ]


def test_gaps_are_shown() -> None:
    assert fold_rows([(f"layers.{i}", 0) for i in (0, 1, 2, 5, 7, 8)])[0].path == "layers.0..2,5,7..8"


def test_nested_indices_are_ranges_only_where_they_form_a_grid() -> None:
    grid = [(f"layers.{i}.experts.{j}", 0) for i in range(2) for j in range(3)]
    assert fold_rows(grid)[0].path == "layers.0..1.experts.0..2"
    assert fold_rows(grid[:-1])[0].path == "layers.0..1.experts.0..2 (5 of these)"


def test_names_with_digits_are_no_layers() -> None:
    assert [f.path for f in fold_rows([("conv1", 0), ("conv2", 0), ("0.x", 0), ("1.x", 0)])] == [
        "conv1",
        "conv2",
        "0..1.x",
    ]


CUT = shard(1, ((4, 4, 3, 3),))


@pytest.mark.parametrize(
    ("op", "choice", "state", "words"),
    [
        ("linear", Choice("cut", {"n": ((2, 2),)}), shard(1, ((2, 2),)), "column (n)"),
        ("linear", Choice("cut", {"k": ((2, 2),)}), P, "row (k)"),
        ("linear", Choice("cut", {"i1": ((2, 2),)}), CUT, "dim 1"),
        ("scaled_dot_product_attention", Choice("cut", {"h": ((2, 2),)}), CUT, "heads (h)"),
        ("mean", Choice("cut", {"d1": ((2, 2),)}), P, "a summed dim"),
        ("add", Choice("whole"), R, "whole"),
        ("add", Choice("deferred"), B, "whole, gradient deferred"),
        ("add", Choice("partial", None, frozenset((0,))), P, "passes partial sums"),
    ],
)
def test_choices_in_words(op: str, choice: Choice, state: object, words: str) -> None:
    assert describe_choice(op, choice, state) == words


def test_placements_in_words() -> None:
    assert describe_placement((CUT,), Mesh.parse("tp=4")) == "dim 1: 4^2,3^2"
    assert describe_placement((R, CUT), Mesh.parse("dp=2,tp=4")) == "dp whole; tp dim 1: 4^2,3^2"


def test_moves_in_words() -> None:
    def words(source: object, target: object) -> str:
        return describe_move(Move(Step(0, (source,), (target,)), "", "", 0.0, 0.0))

    assert words(CUT, B) == "S(1) → B"
    assert words(P, R) == "P → R"
    other = shard(1, ((2, 2, 2, 1), (2, 2, 1, 2)))
    assert words(CUT, other) == "S(1:4^2,3^2) → S(1:2^3,1+2^2,1,2)"


def test_names_and_shapes() -> None:
    assert short_op("aten.linear.default") == "linear"
    assert short_op("aten.relu_.default") == "relu"
    assert join_shapes([(4, 8), (4, 8), (3, 8), ()]) == "4×8, 3×8, scalar"

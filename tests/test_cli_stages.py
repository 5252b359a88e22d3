"""What is said of the time left: never before anything is known, and then what the stages so far say."""

import io

import pytest
from autotp.cli import stages
from autotp.cli.remaining import WEIGHTS, Remaining, stages_of_plan
from autotp.cli.stages import Stages, left_in_words
from rich.console import Console


def test_nothing_is_said_before_anything_is_known() -> None:
    one = Remaining("loading", 0.0)
    assert one.place is None and one.left_s(1.0) is None and one.done_share(1.0) is None
    one.expect(["capturing"])
    assert one.place == (1, 2)
    assert one.left_s(1.0) is None, "no stage has ended, so nothing is known"


def test_a_stage_takes_as_long_as_those_of_its_kind_did() -> None:
    one = Remaining("loading", 0.0)
    one.expect(["planning"] * 3)
    one.begin("planning tp=1", 1.0)
    one.begin("counting bytes", 2.0)  # a part of it
    one.begin("planning tp=1", 2.5)  # once more, under another limit
    one.begin("planning tp=2", 5.0)
    assert one.place == (3, 4)
    assert one.left_s(6.0) == pytest.approx(4.0 + 3.0)
    assert one.done_share(7.0) == pytest.approx(2.5 / 4)
    one.begin("planning tp=4", 7.0)
    assert one.left_s(7.0) == pytest.approx(3.0)
    assert one.left_s(11.0) is None, "it takes longer than the others did: nobody knows how much"


def test_a_new_kind_is_weighed_against_what_has_ended() -> None:
    one = Remaining("loading", 0.0)
    one.expect(["capturing", "planning", "drawing"])
    one.begin("capturing the model", 6.0)
    assert one.left_s(6.0) is None, "loading says nothing of what depends on the model"
    one.begin("planning tp=2", 8.0)
    each_s = 2.0 / WEIGHTS["capturing"]
    assert one.left_s(8.0) == pytest.approx(each_s * (WEIGHTS["planning"] + WEIGHTS["drawing"]))
    strange = Remaining("reading", 0.0)
    strange.expect(["dancing"])
    strange.begin("dancing", 1.0)
    assert strange.left_s(1.0) is None


def test_a_plan_with_a_report_sweeps_afterwards() -> None:
    def found(*flags: bool) -> str:
        return " ".join(stages_of_plan(3, is_sweep=flags[0], has_curve=flags[1], has_report=flags[2]))

    assert found(False, False, False) == "capturing planning"
    assert found(True, False, True) == "capturing planning planning planning drawing"
    assert found(False, True, True) == "capturing planning pricing capturing planning planning planning drawing"


def test_seconds_left_are_coarse() -> None:
    assert [left_in_words(s) for s in (0.2, 7.4, 43.0, 89.0, 200.0)] == ["1 s", "7 s", "40 s", "90 s", "3 min"]


def shown(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=100)
    monkeypatch.setattr(stages, "console_of", lambda _: console)
    with Stages("loading") as status:
        status.expect(["planning", "planning"])
        status.update("planning tp=1")
        status.update("planning tp=2")
        if status._shown is not None:
            status._shown.refresh()
    return file.getvalue()


def test_a_terminal_sees_the_stage_and_a_pipe_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOTP_VERBOSE", raising=False)
    monkeypatch.delenv("AUTOTP_QUIET", raising=False)
    assert "planning tp=2, 3 of 3" in shown(monkeypatch, is_terminal=True)
    assert shown(monkeypatch, is_terminal=False) == ""
    monkeypatch.setenv("AUTOTP_QUIET", "1")
    assert shown(monkeypatch, is_terminal=True) == ""
    monkeypatch.setenv("AUTOTP_VERBOSE", "1")
    assert shown(monkeypatch, is_terminal=False).splitlines()[1].endswith("s  planning tp=1")

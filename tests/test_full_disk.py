"""A disk that is full when a file is written: an error that says so, and what was there stays."""

import os
from pathlib import Path

import pytest

from autotp.api import as_cluster
from autotp.errors import AutoTPError
from autotp.hardware.journal import journal_path
from autotp.measuring import profile as profiling
from autotp.plan_file import write_atomically


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_full_disk(descriptor: int, mode: str):
        os.close(descriptor)
        return open("/dev/full", mode)

    monkeypatch.setattr(os, "fdopen", on_full_disk)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("content", ["new", "new" * 10**6])
def test_the_old_file_stays(tmp_path: Path, content: str) -> None:
    """Small contents fail when the file is closed, large ones while they are written."""
    path = tmp_path / "measured.json"
    path.write_text("old")
    with pytest.raises(AutoTPError, match=r"cannot write .*measured\.json: No space left on device"):
        write_atomically(path, content)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("full_disk")
def test_a_profile_that_cannot_be_written_keeps_the_old_one_and_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cluster.json"
    path.write_text("old")
    journal_path(path).write_text("measured")
    monkeypatch.setattr(profiling, "_spawn", lambda *args: object())
    monkeypatch.setattr(profiling, "cluster_of", lambda *args: (as_cluster("cpu"), []))
    with pytest.raises(AutoTPError, match="No space left on device"):
        profiling.profile(path, num_ranks=2, devices="cpu")
    assert path.read_text() == "old" and journal_path(path).read_text() == "measured"

"""The journal of a profile: what was measured stays, whatever happens, and nothing else is believed."""

import json
from pathlib import Path

import pytest

from autotp.errors import ProfileError
from autotp.hardware.journal import Journal, journal_path

SUBJECT = {"torch": "2.13.0", "devices": ["a", "a"]}


def written(folder: Path) -> Path:
    path = journal_path(folder / "mine.json")
    journal = Journal(path, SUBJECT)
    journal.add("product/1", 0, [[0.1, 0.2], None])
    journal.add("product/2", 0, 0.5)
    journal.add("product/1", 1, [[0.3, 0.2], None])
    journal.close()
    return path


def test_measurements_are_read_again(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert path == tmp_path / "mine.json.journal"
    again = Journal(path, SUBJECT)
    again.close()
    assert again.samples == {"product/1": {0: [[0.1, 0.2], None], 1: [[0.3, 0.2], None]}, "product/2": {0: 0.5}}
    assert (again.num_resumed, again.is_of_another) == (3, False)
    again.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", range(1, 40))
def test_wherever_it_is_cut_off_only_the_last_measurement_is_lost(kept: int, tmp_path: Path) -> None:
    path = written(tmp_path)
    text = path.read_text()
    path.write_text(text[:-kept])
    again = Journal(path, SUBJECT)
    # the last line is longer than what is cut off; without its newline alone it is still whole
    assert again.num_resumed == (3 if kept == 1 else 2)
    again.add("product/3", 0, 1.0)
    again.close()
    last = Journal(path, SUBJECT)
    last.close()
    assert last.samples["product/3"] == {0: 1.0}
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_journal_of_another_machine_is_not_believed(tmp_path: Path) -> None:
    path = written(tmp_path)
    other = Journal(path, {**SUBJECT, "torch": "2.14.0"})
    other.close()
    assert other.is_of_another and not other.samples
    path.write_bytes(b"\x00\xff no journal\n")
    third = Journal(path, SUBJECT)
    third.close()
    assert third.samples == {}


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = journal_path(tmp_path / "mine.json")
    path.symlink_to("/dev/full")
    with pytest.raises(ProfileError, match=r"mine\.json\.journal: No space left on device.*free the disk"):
        Journal(path, SUBJECT)


def test_a_folder_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="No such file or directory"):
        Journal(tmp_path / "none" / "j", SUBJECT)


def test_a_disk_that_fills_up_later_keeps_what_is_there(tmp_path: Path) -> None:
    path = written(tmp_path)
    journal = Journal(path, SUBJECT)
    journal._file.close()
    journal._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.raises(ProfileError, match="No space left"):
        journal.add("product/4", 0, 1.0)
    journal.close()
    again = Journal(path, SUBJECT)
    again.close()
    assert again.num_resumed == 3

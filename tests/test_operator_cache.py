"""The cache of measured operators: what is there stays, whoever writes at once, and keys tell devices apart."""

import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autotp.errors import ProfileError
from autotp.measuring.cache import OperatorCache, Subject, cache_path, subject_of

HERE = Subject("a CPU", "none", "2.13.0", 2)


def test_samples_are_kept_by_subject_and_key(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "operators.sqlite"
    cache = OperatorCache(path)
    cache.add(HERE, "linear", (1.0, 2.0))
    cache.add(HERE, "linear", (3.0, 4.0))
    for other in ("device", "driver", "torch"):
        cache.add(replace(HERE, **{other: "another"}), "linear", (9.0, 9.0))
    cache.add(replace(HERE, num_ranks=1), "linear", (9.0, 9.0))
    again = OperatorCache(path)
    assert again.samples(HERE, ["linear", "gelu"]) == {"linear": [(1.0, 2.0), (3.0, 4.0)]}


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "operators.sqlite"

    def write(number: int) -> None:
        cache = OperatorCache(path)
        for i in range(20):
            cache.add(HERE, f"op{i}", (number, i))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = OperatorCache(path).samples(HERE, [f"op{i}" for i in range(20)])
    assert all(sorted(found[f"op{i}"]) == [(n, i) for n in range(4)] for i in range(20))


def test_what_was_begun_and_not_ended_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "operators.sqlite"
    cache = OperatorCache(path)
    cache.add(HERE, "linear", (1.0, 2.0))
    dying = sqlite3.connect(path)
    dying.execute("INSERT INTO samples SELECT * FROM samples")
    dying.close()  # without a commit, as when a process is killed
    assert cache.samples(HERE, ["linear"]) == {"linear": [(1.0, 2.0)]}


def test_a_file_that_is_no_cache_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "operators.sqlite").write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(ProfileError, match=r"operators\.sqlite: file is not a database.*AUTOTP_CACHE"):
        OperatorCache(tmp_path / "operators.sqlite")
    (tmp_path / "file").touch()
    with pytest.raises(ProfileError, match="cannot use the cache"):
        OperatorCache(tmp_path / "file" / "operators.sqlite")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTP_CACHE", "/some/where")
    assert cache_path() == Path("/some/where/operators.sqlite")
    monkeypatch.delenv("AUTOTP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/else")
    assert cache_path() == Path("/else/autotp/operators.sqlite")


def test_the_device_at_hand_is_named() -> None:
    subject = subject_of(torch.device("cpu"), 2)
    assert subject.torch == torch.__version__ and subject.num_ranks == 2 and "one thread" in subject.device

"""Measured operators on disk: one SQLite database for all models, plans and processes of a user.

Every sample is a transaction of its own, so that an interruption loses the one at work at most, and several processes may
add to one operator at once.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from autotp.errors import ProfileError
from autotp.measuring.devices import device_name

VERSION = 1  # of what a key means
WAIT_S = 60.0  # for another process that writes

Sample = tuple[float, float]  # forward and backward seconds


@dataclass(frozen=True, slots=True)
class Subject:
    """What was measured on: other devices, drivers and versions of torch are others. `num_ranks`: busy at once."""

    device: str
    driver: str
    torch: str
    num_ranks: int


def subject_of(device: torch.device, num_ranks: int) -> Subject:
    """The device at hand."""
    driver = f"CUDA {torch.version.cuda}" if device.type == "cuda" else "none"
    if device.type == "cuda":
        version = Path("/sys/module/nvidia/version")
        driver += f", {version.read_text().strip()}" if version.exists() else ""
    return Subject(device_name(device), driver, torch.__version__, num_ranks)


def cache_path() -> Path:
    """`operators.sqlite` in AUTOTP_CACHE, or else in the user's folder of caches."""
    base = os.environ.get("AUTOTP_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "autotp"
    )
    return Path(base) / "operators.sqlite"


class OperatorCache:
    """Samples by subject and key (`cost.operator_key`). Raises ProfileError where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._connected() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS samples (version INTEGER, device TEXT, driver TEXT, torch TEXT, "
                "num_ranks INTEGER, key TEXT, forward_s REAL, backward_s REAL)"
            )
            connection.execute(
                "CREATE INDEX IF NOT EXISTS by_key ON samples (version, device, driver, torch, num_ranks, key)"
            )

    def add(self, subject: Subject, key: str, sample: Sample) -> None:
        """Keep one sample of an operator."""
        with self._connected() as connection:
            row = (VERSION, subject.device, subject.driver, subject.torch, subject.num_ranks, key, *sample)
            connection.execute(f"INSERT INTO samples VALUES ({', '.join('?' * len(row))})", row)

    def samples(self, subject: Subject, keys: Iterable[str]) -> Mapping[str, list[Sample]]:
        """All samples of these operators; those that have none are left out."""
        found: dict[str, list[Sample]] = {}
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT key, forward_s, backward_s FROM samples WHERE version = ? AND device = ? AND driver = ? "
                "AND torch = ? AND num_ranks = ? AND key IN (SELECT value FROM json_each(?)) ORDER BY rowid",
                (
                    VERSION, subject.device, subject.driver, subject.torch, subject.num_ranks,
                    json.dumps(sorted(set(keys))),
                ),
            )  # fmt: skip
            for key, forward_s, backward_s in rows:
                found.setdefault(key, []).append((forward_s, backward_s))
        return found

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A connection in one transaction: all of it happens, or nothing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=WAIT_S)) as connection, connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise ProfileError(
                f"cannot use the cache of measured operators {self.path}: {error}. Delete it, or name another folder in "
                "the environment's AUTOTP_CACHE"
            ) from error

"""A journal of finished measurements beside the profile that they are for, so that nothing is measured twice.

One JSON object per line, written and synced as soon as it is known. The first line says what the measurements are of; a
last line that was cut off is as if it had not been begun.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from autotp.errors import ProfileError

VERSION = 1
Samples = dict[str, dict[int, Any]]  # key of a measurement -> round -> what was measured


def journal_path(output: str | Path) -> Path:
    """Where the journal of a profile is."""
    output = Path(output)
    return output.with_name(output.name + ".journal")


class Journal:
    """Measurements by key and round. Opening it reads what is there, if that is of the same subject."""

    def __init__(self, path: Path, subject: Mapping[str, Any]) -> None:
        self._path = path
        self.samples: Samples = {}
        header = {"autotp_profile_journal": VERSION, "subject": json.loads(json.dumps(subject))}
        lines = _read(path)
        self.is_of_another = bool(lines) and lines[0] != header
        if lines and not self.is_of_another:
            for line in lines[1:]:
                self.samples.setdefault(line["key"], {})[line["round"]] = line["measured"]
        self.num_resumed = sum(map(len, self.samples.values()))
        try:
            # what was cut off is written over, else the next line would be glued to it
            whole = [header, *lines[1:]] if not self.is_of_another else [header]
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
                self._file: BinaryIO = path.open("wb", buffering=0)
                try:
                    self._append(header)
                except OSError:
                    self._file.close()
                    raise
                return
            with temporary.open("w") as file:
                file.writelines(json.dumps(line) + "\n" for line in whole)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise _unwritable(path, error) from error

    def add(self, key: str, number: int, measured: Any) -> None:
        """Keep what round `number` of a measurement gave. Raises ProfileError where that cannot be written."""
        try:
            self._append({"key": key, "round": number, "measured": measured})
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self.samples.setdefault(key, {})[number] = measured

    def _append(self, line: Any) -> None:
        self._file.write((json.dumps(line, allow_nan=False) + "\n").encode())
        if self._path.is_file():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """Delete the journal: the profile is written."""
        self.close()
        self._path.unlink(missing_ok=True)


def _read(path: Path) -> list[Any]:
    """The whole lines of a journal; none where there is none."""
    if not path.is_file():
        return []
    lines = []
    try:
        for text in path.read_text(errors="replace").splitlines():
            lines.append(json.loads(text))
    except OSError as error:
        raise ProfileError(f"cannot read the journal {path}: {error.strerror}") from error
    except ValueError:
        pass  # cut off here: what follows was never finished
    return lines


def _unwritable(path: Path, error: OSError) -> ProfileError:
    return ProfileError(
        f"cannot write the journal {path}: {error.strerror}. What it holds so far is kept; free the disk or choose "
        "another -o, and run the same command again"
    )

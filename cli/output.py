"""What a command says and where: its answer on standard output; progress, warnings and errors on standard error."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

PIPE_WIDTH = 160  # columns of tables where standard output is not a terminal, and COLUMNS does not say


@dataclass(frozen=True)
class Answer:
    """What a command returns: the object of `--json`, and what people read instead, made only if it is wanted."""

    data: dict[str, Any]
    text: Callable[[], Iterable[RenderableType]]
    exit_code: int = 0


def print_answer(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer.data, allow_nan=False))
        return
    console = console_of(sys.stdout)
    for part in answer.text():
        if isinstance(part, str):  # code: as it is, never wrapped
            print(part)
        else:
            console.print(part)


def print_error(message: str, *, as_json: bool) -> None:
    """The one line of an error: red on standard error, or `{"error": ...}` on standard output."""
    message = " ".join(message.split())
    if as_json:
        print(json.dumps({"error": message}))
    else:
        _print_line("error: ", "bold red", message)


def take_settings(arguments: list[str]) -> list[str]:
    """The arguments without `--quiet` and `--verbose`, which may stand anywhere and hold for the whole process."""
    for name in ("quiet", "verbose"):
        if f"--{name}" in arguments:
            os.environ[f"AUTOTP_{name.upper()}"] = "1"
    return [argument for argument in arguments if argument not in ("--quiet", "--verbose")]


def is_quiet() -> bool:
    return bool(os.environ.get("AUTOTP_QUIET"))


def is_verbose() -> bool:
    return bool(os.environ.get("AUTOTP_VERBOSE"))


@contextmanager
def tidy_warnings() -> Iterator[None]:
    """Warnings meanwhile are one line each on standard error, and the same one is said once."""
    said: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(str(message).split())
        if text not in said and not is_quiet():
            said.add(text)
            _print_line("warning: ", "yellow", text)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """All that is printed meanwhile, by model files, libraries and children too, goes to standard error."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _print_line(label: str, style: str, message: str) -> None:
    # A terminal wraps by itself; wrapping here would break the one line that scripts read.
    console_of(sys.stderr).print(Text.assemble((label, style), message), soft_wrap=True)


def console_of(file: TextIO) -> Console:
    given = file.isatty() or os.environ.get("COLUMNS")
    return Console(file=file, highlight=False, width=None if given else PIPE_WIDTH)

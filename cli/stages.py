"""The stage at work: on a terminal with a bar and what is known of the time left, with `--verbose` as a line each."""

import sys
import time
from collections.abc import Sequence

from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task
from rich.progress_bar import ProgressBar
from rich.text import Text

from .output import console_of, is_quiet, is_verbose
from .remaining import Remaining

BAR_WIDTH = 20


class Stages:
    """A context; `update` names the next stage, `expect` says how many more there will be."""

    def __init__(self, stage: str) -> None:
        self._console = console_of(sys.stderr)
        self._stage, self._began = stage, time.perf_counter()
        self._remaining = Remaining(stage, self._began)
        self._shown: Progress | None = None
        if self._console.is_terminal and not is_quiet() and not is_verbose():
            columns = (SpinnerColumn(), _Words(self._remaining), _Bar(self._remaining))
            self._shown = Progress(*columns, console=self._console, transient=True)
            self._task = self._shown.add_task(stage)

    def expect(self, kinds: Sequence[str]) -> None:
        """The first words of all stages that will follow the present one: then the time left can be told."""
        self._remaining.expect(kinds)

    def update(self, stage: str) -> None:
        """The next stage begins."""
        self._end()
        self._stage, self._began = stage, time.perf_counter()
        self._remaining.begin(stage, self._began)
        if self._shown is not None:
            self._shown.update(self._task, description=stage)

    def _end(self) -> None:
        if is_verbose():
            took_s = time.perf_counter() - self._began
            self._console.print(f"{took_s:8.2f} s  {self._stage}", soft_wrap=True)

    def __enter__(self) -> "Stages":
        if self._shown is not None:
            self._shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown.stop()
        self._end()


class _Words(ProgressColumn):
    """`planning tp=4, 3 of 6, some 12 s left`."""

    def __init__(self, remaining: Remaining) -> None:
        super().__init__()
        self._remaining = remaining

    def render(self, task: Task) -> Text:
        place, left_s = self._remaining.place, self._remaining.left_s(time.perf_counter())
        parts = [task.description]
        if place is not None:
            parts.append(f"{place[0]} of {place[1]}")
        if left_s is not None:
            parts.append(f"some {left_in_words(left_s)} left")
        return Text(", ".join(parts))


class _Bar(ProgressColumn):
    def __init__(self, remaining: Remaining) -> None:
        super().__init__()
        self._remaining = remaining

    def render(self, task: Task) -> ProgressBar | Text:
        done = self._remaining.done_share(time.perf_counter())
        return Text("") if done is None else ProgressBar(total=1.0, completed=done, width=BAR_WIDTH)


def left_in_words(seconds: float) -> str:
    """Coarse, as it is an estimate: `3 s`, `40 s`, `5 min`."""
    if seconds >= 90:
        return f"{round(seconds / 60)} min"
    return f"{max(1, round(seconds))} s" if seconds < 10 else f"{10 * round(seconds / 10)} s"


def progress(stage: str) -> Stages:
    """A context in which the stage at work is shown; `update` names the next stage."""
    return Stages(stage)

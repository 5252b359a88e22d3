"""Progress of a long measurement on standard error: a bar on a terminal, a line at every tenth elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A context; nothing is printed where `shown` is false, which is on every rank but the first."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._total, self._shown, self._done, self._tenth = total, shown, 0, 0
        self._started = time.monotonic()
        columns = (BarColumn(20), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=Console(file=sys.stderr), transient=True)
        self._is_bar = shown and sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        if self._is_bar:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_bar:
            self._bar.stop()

    def advance(self, what: str) -> None:
        """One more is done; `what` says which."""
        self._done += 1
        if self._is_bar:
            self._bar.update(self._task, advance=1, description=what)
        elif self._shown and 10 * self._done // self._total > self._tenth:
            self._tenth = 10 * self._done // self._total
            seconds = time.monotonic() - self._started
            print(f"{self._tenth}0% after {seconds:.0f} s: {what}", file=sys.stderr, flush=True)

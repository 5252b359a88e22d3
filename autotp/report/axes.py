"""Axes that all figures share: their sizes, ticks in words, and where the legend stands."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autotp.report.style import LIGHT, figure, styled

WIDTH, NARROW = 7.6, 4.0  # inches: of a page, and of a telephone


@contextlib.contextmanager
def axes(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this size in inches with one pair of axes, to be drawn in the report's style."""
    with mpl.rc_context(styled()):
        fig = figure(width, height)
        yield fig, fig.subplots()


def _is_narrow(ax: Axes) -> bool:
    return ax.figure.get_figwidth() <= NARROW if isinstance(ax.figure, Figure) else False


def end(ax: Axes, y: float, x: float, text: str) -> None:
    """Words behind the end of a bar."""
    ax.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", color=LIGHT["ink"])


def finish(
    ax: Axes, words: Callable[[float], str], values: Sequence[float], *, room: float = 1.18, step: float = 0
) -> None:
    """Ticks in words, and room for the words behind the longest bar."""
    ax.set_xlim(0, room * max(values))
    if step:  # bytes read well in powers of two only
        while max(values) / step > 6:
            step *= 2
        ax.set_xticks([step * i for i in range(int(max(values) / step) + 1)])
    ticks = [tick for tick in ax.get_xticks() if tick <= room * max(values)]
    if _is_narrow(ax):  # words need room
        ticks = ticks[:: max(1, math.ceil(len(ticks) / 4))]
    ax.set_xticks(ticks, [words(tick) for tick in ticks])


def legend(ax: Axes) -> None:
    """Above the axes."""
    labels = ax.get_legend_handles_labels()[1]
    letters = 44 if _is_narrow(ax) else 112
    ncols = max(1, min(len(labels), letters // (max(map(len, labels), default=1) + 4)))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=ncols, fontsize=8, handlelength=1, columnspacing=1.2)

"""A step's events made few enough to draw."""

from collections.abc import Iterable
from itertools import groupby

from autotp.timeline import Event


def merged(events: Iterable[Event]) -> list[Event]:
    """Neighbours of one stream and phase as one event, which is named after the longest of them."""
    found = []
    for _, group in groupby(events, key=lambda event: (event.stream, event.phase)):
        some = list(group)
        longest = max(some, key=lambda event: event.duration_s)
        duration_s = some[-1].end_s - some[0].start_s
        found.append(
            Event(
                longest.what, longest.node, longest.module, longest.stream, longest.phase, some[0].start_s, duration_s
            )
        )
    return found

"""Numbers as people read and write them: seconds, bytes, counts, shares."""

import re

from autotp.errors import AutoTPError

_BYTES: dict[str, int] = {"": 1, "b": 1} | {
    f"{letter}{middle}b": base**power
    for power, letter in enumerate("kmgt", start=1)
    for middle, base in (("", 1000), ("i", 1024))
}


def parse_bytes(text: str) -> float:
    """Bytes from `70GiB`, `80GB` or `24e9`. Raises AutoTPError on anything else, and on what is not positive."""
    match = re.fullmatch(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z]*)\s*", text)
    if not match or match[2].lower() not in _BYTES:
        raise AutoTPError(f"cannot read the memory size {text!r}: write it as 70GiB, 80GB or 24e9 (bytes)")
    number = float(match[1]) * _BYTES[match[2].lower()]
    if not 0 < number < float("inf"):
        raise AutoTPError(f"the memory size {text!r} must be positive and finite")
    return number


def seconds(value: float) -> str:
    """`1.23 s`, `45.6 ms`, `7.89 µs`: three significant digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= 0.9995 * scale:
            return f"{_digits(value / scale)} {unit}"
    return f"{_digits(value / 1e-9)} ns" if value else "0"


def size(num_bytes: float) -> str:
    """`45.6 GiB`: three significant digits."""
    for unit, scale in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if abs(num_bytes) >= 0.9995 * scale:
            return f"{_digits(num_bytes / scale)} {unit}"
    return f"{num_bytes:.0f} B"


def count(number: float) -> str:
    """`8.03 B` (10⁹), `71.2 M`, `12.8 k`: three significant digits."""
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * scale:
            return f"{_digits(number / scale)} {unit}"
    return f"{number:g}"


def rate(per_s: float, unit: str) -> str:
    """`3.35 TB/s`, `989 Tflop/s`: decimal prefixes, as datasheets have them."""
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if per_s >= 0.9995 * scale:
            return f"{_digits(per_s / scale)} {prefix}{unit}/s"
    return f"{per_s:g} {unit}/s"


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"

"""Sizes as people write them: 512MiB, 2 GiB, 1.5G."""

from __future__ import annotations

import operator
import re
from fractions import Fraction

PAGE_BYTES = 4096

# As in ulimit, docker and cgroups, a bare letter is a power of two; the SI units KB, MB, ... are powers of
# ten.
_PREFIXES = "KMGTPE"
_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate(_PREFIXES, start=1):
    _UNITS[_letter] = _UNITS[_letter + "IB"] = 1024**_power
    _UNITS[_letter + "B"] = 1000**_power

_FORM = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)\s*", re.ASCII)
_LARGEST = 2**63 - 1


def parse_size(value: object, what: str = "size") -> int:
    """The number of bytes that value means: an integer, or text such as "512MiB", "2 GiB", "1.5G", "10MB".

    KiB, MiB, GiB, ... and the bare letters K, M, G, ... are powers of 1024; KB, MB, GB, ... are powers of
    1000. Case does not matter; fractions of a byte are dropped. Thread-safe.

    Raises:
        ValueError: not a size, zero, negative, not finite, a bool, or 2**63 and more.
        TypeError: neither text nor an integer.

    Example:
        >>> parse_size("512MiB"), parse_size("1.5G"), parse_size("10 MB"), parse_size(4096)
        (536870912, 1610612736, 10000000, 4096)
        >>> parse_size("12XB", "limit")
        Traceback (most recent call last):
        ValueError: limit: '12XB' is not a size; write for example 512MiB, 2GiB or a number of bytes
    """
    if isinstance(value, bool):
        raise ValueError(f"{what}: {value} is not a size; write for example 512MiB, 2GiB or a number of bytes")
    size = _parse_text(value, what) if isinstance(value, str) else _parse_number(value, what)
    if size <= 0:
        raise ValueError(f"{what} must be at least one byte, not {value!r}")
    if size > _LARGEST:
        raise ValueError(f"{what}: {value!r} is more than any machine can address")
    return size


def _parse_text(text: str, what: str) -> int:
    match = _FORM.fullmatch(text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        if text.strip().startswith("-"):
            raise ValueError(f"{what} must be at least one byte, not {text!r}")
        raise ValueError(f"{what}: {text!r} is not a size; write for example 512MiB, 2GiB or a number of bytes")
    return int(Fraction(match[1]) * unit)


def _parse_number(value: object, what: str) -> int:
    if isinstance(value, float) and value != value:
        raise ValueError(f"{what}: NaN is not a size")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{what} must be an integer or text such as '512MiB', not {kind}") from None


def format_size(size: int) -> str:
    """size in the largest unit that leaves at least 1, with up to two decimals.

    Example:
        >>> format_size(536870912), format_size(1610612736), format_size(100)
        ('512 MiB', '1.5 GiB', '100 B')
    """
    scaled = Fraction(size)
    unit = "B"
    for letter in _PREFIXES:
        if abs(scaled) < 1024:
            break
        scaled /= 1024
        unit = letter + "iB"
    return f"{float(scaled):.2f}".rstrip("0").rstrip(".") + f" {unit}"


def round_to_pages(size: int) -> int:
    """size rounded up to whole pages of 4096 bytes."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES

"""Capacity, the memory of this machine, and what would not fit into it."""

import os
from decimal import Context, Decimal
from pathlib import Path

__all__ = ["brief", "shortage"]

_UNKNOWN = 2**38  # bytes, where a system does not say what it has
# Limits of containers, as kernels of two generations tell them.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def total() -> int:
    """Bytes of memory that there are for a process: those of the machine, or of its container."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no such call
        found = _UNKNOWN
    for name in _LIMITS:
        try:
            limit = Path(name).read_text().strip()
        except OSError:
            continue
        found = min(found, int(limit)) if limit.isdigit() else found
    return found if found > 0 else _UNKNOWN


def shortage(needed: int) -> str:
    """How much memory is needed and how much there is, where that is less; empty elsewhere.

    Args:
        needed: Bytes that are held at once.

    Example:
        >>> shortage(2**20)
        ''
        >>> shortage(2**70).split(", found")[0]
        '1.10e+12 GiB of memory'
    """
    there = total()
    if needed <= there:
        return ""
    return f"{_gibibytes(needed)} of memory, found {_gibibytes(there)}"


def brief(value: int) -> str:
    """An integer of any size in words: its digits, or the first few of very many.

    Example:
        >>> brief(1_000_000), brief(10**400)
        ('1,000,000', '1e+400')
    """
    if abs(value) < 10**15:
        return f"{value:,}"
    return f"{Context(prec=6).create_decimal(value).normalize():g}"


def _gibibytes(size: int) -> str:
    return f"{Decimal(size) / 2**30:.3g} GiB"

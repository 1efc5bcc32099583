"""Refuses what the machine cannot hold, with numbers, before anything is allocated."""

from __future__ import annotations

import os

from isometry.errors import InputError


def available_bytes() -> int:
    """Memory that can be had now, in bytes (physical memory where the system does not tell)."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:  # noqa: PTH123
            for line in stream:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def splat_bytes(harmonics: int) -> int:
    """Working memory of one splat while it is read and rendered: parameters twice, projection, sorting."""
    return 2 * 4 * (11 + 3 * harmonics) + 160


def check_room(count: int, name: str, *, harmonics: int, budget: int | None = None) -> None:
    """Refuse `count` splats with this many harmonics each where they need more than half the free memory.

    Raises:
        InputError: with both sizes and the number of splats that would fit.
    """
    budget = available_bytes() // 2 if budget is None else budget
    each = splat_bytes(harmonics)
    if count * each > budget:
        raise InputError(
            f"{name}: {count:,} splats with {harmonics} harmonics need about {count * each / 1e9:.1f} GB and "
            f"{budget / 1e9:.1f} GB may be used here; cut it to {budget // each:,} splats or to harmonic degree 0 "
            f"({budget // splat_bytes(1):,} splats)"
        )

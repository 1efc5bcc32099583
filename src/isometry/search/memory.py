"""How much memory a piece of work took, as the kernel saw it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")


@dataclass
class Growth:
    """`mb`: 10^6 bytes that the process grew by at most; None where the system does not tell (other than Linux)."""

    mb: float | None = None


@contextmanager
def watched() -> Iterator[Growth]:
    """Of what runs within it; other threads of the process count too, and so do pages of mapped files that are read."""
    growth = Growth()
    before = None
    try:
        (_SELF / "clear_refs").write_text("5")  # the high-water mark starts again here
        before = _field("VmRSS")
    except OSError:
        pass
    yield growth
    peak = _field("VmHWM") if before is not None else None
    if before is not None and peak is not None:
        growth.mb = round(max(0, peak - before) / 1e6, 1)


def _field(name: str) -> int | None:
    """Bytes of a line of /proc/self/status."""
    try:
        lines = (_SELF / "status").read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else 1024 * int(found.split()[1])

"""Cameras around the example, for tests."""

from __future__ import annotations

import numpy as np

from isometry.scenes.files.cameras import Camera, look_at


def ring(count: int, width: int = 40, height: int = 32) -> list[Camera]:
    """Cameras around the example's table."""
    angles = np.linspace(-0.9, 0.9, count)
    return [
        look_at([1.6 * np.sin(a), 1.3 + 0.2 * (n % 2), 1.6 * np.cos(a)], [0, 0.8, 0], up=[0, 1, 0], width=width,
                height=height, field_of_view=40, name=f"{n:02d}.png")
        for n, a in enumerate(angles)
    ]  # fmt: skip

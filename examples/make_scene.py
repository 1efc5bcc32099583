"""Writes examples/scene, the scene that comes with Isometry. Run from the repository's root; the folder must not be there."""

from __future__ import annotations

from pathlib import Path

from isometry.scenes import example_scene, save_scene
from isometry.scenes.example import SHIPPED

if __name__ == "__main__":
    folder = save_scene(example_scene(splats=SHIPPED), Path(__file__).parent / "scene", compact=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB")  # noqa: T201

"""From the arbitrary frame of a capture to the scene's: y up, metres, the middle of the cameras' attention at x = z = 0."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from isometry.errors import InputError
from isometry.scenes.capture.start import focus
from isometry.scenes.files.cameras import Camera, Capture
from isometry.scenes.turning import upright

ASSUMED = 1.5  # metres between cameras and subject where nobody says


@dataclass(frozen=True)
class Frame:
    """p becomes scale * rotation @ (p - centre). `known` says whether a person gave the scale."""

    rotation: np.ndarray
    scale: float
    centre: np.ndarray
    known: bool

    def capture(self, capture: Capture) -> Capture:
        """Cameras and points in the new frame."""
        points = None if capture.points is None else self.scale * (capture.points - self.centre) @ self.rotation.T
        return Capture([self.camera(camera) for camera in capture.cameras], points, capture.colours)

    def camera(self, camera: Camera) -> Camera:
        rotation = camera.rotation @ self.rotation.T
        translation = self.scale * (camera.rotation @ self.centre + camera.translation)
        return replace(camera, rotation=rotation, translation=translation)

    @property
    def note(self) -> str:
        """What to tell about the scale."""
        if self.known:
            return f"scale: one unit of the source is {self.scale:.6g} m, as given"
        return (
            f"scale unknown: one unit of the source is taken as {self.scale:.4g} m, so that the cameras stand {ASSUMED} m "
            "from the subject; give --known-length UNITS=METRES for true sizes and physics"
        )


def capture_frame(cameras: list[Camera], metres_per_unit: float | None, up: np.ndarray | None) -> Frame:
    """The frame of a capture: up is across all cameras' right-hand sides, which people hold level, unless given."""
    if up is None:
        up = _up(cameras)
    centre, distance = focus(cameras)
    scale = ASSUMED / distance if metres_per_unit is None else check_scale(metres_per_unit)
    return Frame(upright(up), scale, centre, metres_per_unit is not None)


def _up(cameras: list[Camera]) -> np.ndarray:
    tops = -np.mean([camera.rotation[1] for camera in cameras], axis=0)
    if np.linalg.norm(tops) < 0.1:
        raise InputError("the cameras' tops point everywhere, so up cannot be told; give --up x,y,z")
    sides = np.stack([camera.rotation[0] for camera in cameras])
    sizes, axes = np.linalg.eigh(sides.T @ sides / len(sides))
    up = axes[:, 0]
    if sizes[1] < 4 * sizes[0] + 0.01 or abs(up @ tops) < 0.3 * np.linalg.norm(tops):
        # all cameras look the same way: their sides fix one direction only
        side = axes[:, 2]
        up = tops - (tops @ side) * side
    turned: np.ndarray = up if up @ tops > 0 else -up
    return turned


def check_scale(scale: float) -> float:
    """Metres per unit, if it can be one."""
    if not (math.isfinite(scale) and 1e-6 <= scale <= 1e6):
        raise InputError(f"metres per unit must lie within 1e-06 and 1e+06 and are {scale:g}")
    return scale

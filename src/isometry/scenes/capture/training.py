"""Optimises Gaussians until they look like photographs: the reference 3DGS loop on the CPU rasteriser.

Paper 1, section 1 of its note: L1 and structural similarity, Gaussians that multiply where the picture pulls at them,
vanish where they are faint, opacities that are reset, harmonics that come in degree by degree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from isometry.errors import DivergedError
from isometry.scenes.capture.loss import Target
from isometry.scenes.capture.parameters import NAMES, Parameters
from isometry.scenes.capture.photos import Photo
from isometry.scenes.capture.presets import Preset
from isometry.scenes.files.cameras import Camera
from isometry.scenes.gaussians import Gaussians, rotation_matrices
from isometry.scenes.raster import render, render_backward

BLACK = (0.0, 0.0, 0.0)


class Training:
    """One run. `step` until `iteration` reaches the preset's; the same seed and threads give the same bits.

    Args:
        start: Gaussians to begin with.
        photos: what they shall look like
    """

    def __init__(
        self, start: Gaussians, photos: list[Photo], preset: Preset, *, seed: int = 0, threads: int | None = None
    ) -> None:
        self.photos, self.preset, self.threads = photos, preset, threads
        self.targets = [Target(photo.colours, photo.known) for photo in photos]
        self.extent = cameras_extent(photos)
        self.parameters = Parameters(start, preset.degree)
        self.iteration = 0
        self.rng = np.random.default_rng(seed)
        self._views: list[int] = []
        self._reset_statistics()

    def _reset_statistics(self) -> None:
        n = len(self.parameters)
        self._pull, self._seen = np.zeros(n), np.zeros(n)

    @property
    def count(self) -> int:
        """Gaussians now."""
        return len(self.parameters)

    def gaussians(self) -> Gaussians:
        """As trained so far, with the harmonics in use."""
        return self.parameters.gaussians(self.preset.degree_at(self.iteration))

    def picture(self, camera: Camera) -> np.ndarray:
        """What a camera sees of the present state, `(h, w, 3)` float32."""
        return render(self.gaussians(), camera, background=BLACK, threads=self.threads).colour

    def step(self) -> float:
        """One photograph; gives the loss before the step.

        Raises:
            DivergedError: a loss that is no number.
        """
        preset = self.preset
        if not self._views:
            self._views = self.rng.permutation(len(self.photos)).tolist()
        view = self._views.pop()
        camera = self.photos[view].camera
        gaussians = self.gaussians()
        drawn = render(gaussians, camera, background=BLACK, threads=self.threads)
        loss, slope = self.targets[view].compare(drawn.colour, preset.structure)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} at iteration {self.iteration} (view '{camera.name}')")
        gradients = render_backward(gaussians, camera, drawn, slope)
        self.iteration += 1
        if self.iteration < preset.densify_until:
            half = np.array([camera.width / 2, camera.height / 2])
            self._pull[drawn.visible] += np.linalg.norm(gradients.centres[drawn.visible] * half, axis=1)
            self._seen[drawn.visible] += 1
        self.parameters.descend(gradients, self._rates())
        self._multiply()
        return loss

    def _rates(self) -> dict[str, float]:
        preset = self.preset
        return {
            "means": preset.position_rate(self.iteration) * self.extent,
            "log_scales": preset.scaling,
            "quaternions": preset.rotation,
            "logits": preset.opacity,
            "harmonics": preset.feature,
            "rest": preset.feature / 20,
        }

    def _multiply(self) -> None:
        if self.preset.multiplies_at(self.iteration):
            self._densify()
            self._prune(late=self.iteration > self.preset.reset_every)
            self._reset_statistics()
        if self.preset.dims_at(self.iteration):
            ceiling = np.float32(math.log(0.01 / 0.99))
            np.minimum(self.parameters.values["logits"], ceiling, out=self.parameters.values["logits"])
            self.parameters.forget("logits")

    def _densify(self) -> None:
        preset, values = self.preset, self.parameters.values
        pull = self._pull / np.maximum(self._seen, 1)
        chosen = np.nonzero(pull >= preset.gradient)[0]
        room = preset.most - len(self.parameters)
        if len(chosen) > room:
            chosen = chosen[np.argsort(-pull[chosen], kind="stable")][: max(0, room)]
        sizes = np.exp(values["log_scales"][chosen]).max(axis=1) if len(chosen) else np.zeros(0)
        small = chosen[sizes <= preset.dense * self.extent]
        large = chosen[sizes > preset.dense * self.extent]
        added = {name: values[name][small] for name in NAMES}
        if len(large):
            twice = np.repeat(large, 2)
            scales = np.exp(values["log_scales"][twice])
            offsets = self.rng.normal(size=scales.shape) * scales
            turned = np.einsum("nij,nj->ni", rotation_matrices(values["quaternions"][twice]), offsets)
            halves = {name: values[name][twice].copy() for name in NAMES}
            halves["means"] = halves["means"] + turned
            halves["log_scales"] = halves["log_scales"] - np.log(1.6)
            added = {name: np.concatenate([added[name], halves[name]]) for name in NAMES}
        keep = np.ones(len(self.parameters), bool)
        keep[large] = False
        self.parameters.keep(keep)
        self.parameters.add(added)

    def _prune(self, *, late: bool) -> None:
        values = self.parameters.values
        faint = values["logits"] < math.log(self.preset.faintest / (1 - self.preset.faintest))
        if late:
            faint |= np.exp(values["log_scales"]).max(axis=1) > 0.1 * self.extent
        if faint.all():
            faint[np.argmax(values["logits"])] = False
        self.parameters.keep(~faint)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Everything that `restore` needs: arrays, and words."""
        arrays: dict[str, np.ndarray] = {}
        for kind, table in (("value", self.parameters.values), ("first", self.parameters.first),
                            ("second", self.parameters.second)):  # fmt: skip
            arrays |= {f"{kind}.{name}": array for name, array in table.items()}
        arrays |= {"pull": self._pull, "seen": self._seen}
        words = {
            "iteration": self.iteration,
            "steps": self.parameters.steps,
            "views": self._views,
            "random": self.rng.bit_generator.state,
        }
        return arrays, {"training": json.dumps(words)}

    def restore(self, arrays: dict[str, np.ndarray], words: dict[str, str]) -> None:
        """Go on where `state` was taken."""
        told: dict[str, Any] = json.loads(words["training"])
        for kind, table in (("value", self.parameters.values), ("first", self.parameters.first),
                            ("second", self.parameters.second)):  # fmt: skip
            for name in NAMES:
                table[name] = arrays[f"{kind}.{name}"].copy()
        self._pull, self._seen = arrays["pull"].copy(), arrays["seen"].copy()
        self.iteration, self.parameters.steps = int(told["iteration"]), int(told["steps"])
        self._views = [int(view) for view in told["views"]]
        self.rng.bit_generator.state = told["random"]


def cameras_extent(photos: list[Photo]) -> float:
    """The reference's size of a scene: 1.1 times the largest distance of a camera from the cameras' mean."""
    positions = np.stack([photo.camera.position for photo in photos])
    return 1.1 * float(np.linalg.norm(positions - positions.mean(axis=0), axis=1).max()) or 1.0


def judge(gaussians: Gaussians, photos: list[Photo], threads: int | None = None) -> dict[str, float]:
    """Mean PSNR in decibel and mean SSIM over photographs."""
    return judge_pictures(lambda camera: render(gaussians, camera, background=BLACK, threads=threads).colour, photos)


def judge_pictures(draw: Callable[[Camera], np.ndarray], photos: list[Photo]) -> dict[str, float]:
    """The same for whatever draws: a camera in, `(h, w, 3)` out."""
    psnr, ssim = [], []
    for photo in photos:
        target = Target(photo.colours, photo.known)
        picture = draw(photo.camera)
        psnr.append(target.psnr(picture))
        ssim.append(target.ssim(np.clip(picture, 0, 1)))
    return {"psnr": float(np.mean(psnr)), "ssim": float(np.mean(ssim)), "views": float(len(photos))}
